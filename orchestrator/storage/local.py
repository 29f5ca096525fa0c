"""Files of jobs in a local folder."""

import shutil
from contextlib import suppress
from pathlib import Path

from orchestrator.concurrency import run_in_thread
from orchestrator.filesystem import atomic_write, sync, temporary_path
from orchestrator.storage.base import (
    MARKER,
    QUARANTINE,
    JobStorage,
    check_owner,
    folder_name,
    make_folder,
    storage_errors,
)
from orchestrator.storage.folders import file_names, job_ids_in, remove_folder, unlink_files


class LocalStorage(JobStorage):
    """Keeps them in a folder, `music_{job_id}/` for each job.

    list_names() includes files that lie there and are not persisted yet.
    """

    async def claim(self, database_id: str) -> None:
        marker = self._root / MARKER
        with storage_errors(f"looking for the database that {self._root} belongs to"):
            owner = await run_in_thread(_claim, marker, database_id)
        check_owner(owner, database_id, "MUSICLAB_CACHE", str(self._root), str(marker))

    async def persist(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with storage_errors(f"writing files of job {job_id} to disk"):
            await run_in_thread(sync, *paths)

    async def fetch(self, job_id: str, name: str) -> Path:
        path = self._path(job_id, name)
        with storage_errors(f"looking for {name} of job {job_id}"):
            await run_in_thread(path.stat)
        return path

    async def read(self, job_id: str, name: str) -> bytes:
        with storage_errors(f"reading {name} of job {job_id}"):
            return await run_in_thread(self._path(job_id, name).read_bytes)

    async def list_names(self, job_id: str) -> set[str]:
        with storage_errors(f"listing the files of job {job_id}"):
            return await run_in_thread(file_names, self.workspace(job_id))

    async def rename(self, job_id: str, old: str, new: str) -> None:
        with storage_errors(f"renaming {old} of job {job_id} to {new}"):
            await run_in_thread(_rename, self._path(job_id, old), self._path(job_id, new))

    async def copy(self, job_id: str, name: str, to_job_id: str) -> None:
        with storage_errors(f"giving {name} of job {job_id} to job {to_job_id}"):
            await run_in_thread(_link, self._path(job_id, name), self._path(to_job_id, name))

    async def delete(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with storage_errors(f"deleting files of job {job_id}"):
            await run_in_thread(unlink_files, *paths)

    async def release_workspace(self, job_id: str) -> None:
        """Nothing: the workspace is where the files are kept."""

    async def remove(self, job_id: str) -> None:
        with storage_errors(f"removing the files of job {job_id}"):
            await run_in_thread(remove_folder, self.workspace(job_id))

    async def job_ids(self) -> set[str]:
        with storage_errors("listing the jobs that have files"):
            return await run_in_thread(job_ids_in, self._root)

    async def quarantine(self, job_id: str) -> None:
        with storage_errors(f"setting the files of job {job_id} aside"):
            await run_in_thread(_move, self.workspace(job_id), self._set_aside(job_id))

    async def restore(self, job_id: str) -> None:
        with storage_errors(f"putting the files of job {job_id} back"):
            await run_in_thread(_move, self._set_aside(job_id), self.workspace(job_id))

    async def discard(self, job_id: str) -> None:
        with storage_errors(f"removing the files of job {job_id} from the quarantine"):
            await run_in_thread(remove_folder, self._set_aside(job_id))

    async def quarantined(self) -> dict[str, float]:
        with storage_errors("listing the jobs in quarantine"):
            return await run_in_thread(_changed, self._root / QUARANTINE)

    def _set_aside(self, job_id: str) -> Path:
        return self._root / QUARANTINE / folder_name(job_id)


def _claim(marker: Path, database_id: str) -> str:
    """The database that a marker names, which is this one where there was no marker."""
    if not marker.exists():
        make_folder(marker.parent)
        part = temporary_path(marker)
        try:
            part.write_text(database_id)
            sync(part)
            _exclusive(part, marker)
            sync(marker)
        finally:
            part.unlink(missing_ok=True)
    return marker.read_text().strip()


def _exclusive(part: Path, marker: Path) -> None:
    """Rename a file, unless another process has taken the name."""
    try:
        marker.hardlink_to(part)
    except FileExistsError:
        pass
    except OSError:  # the file system knows no links
        part.replace(marker)


def _rename(old: Path, new: Path) -> None:
    old.replace(new)
    sync(new)


def _link(source: Path, target: Path) -> None:
    """Make target the same file as source, or a copy where the file system knows no links."""
    source.stat()  # before anything is made, should it be missing
    make_folder(target.parent)
    with atomic_write(target) as part:
        try:
            part.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, part)
    sync(target)


def _move(folder: Path, target: Path) -> None:
    """Move the files of a folder into another folder, whose modification time becomes now.

    Several processes may do so at once.
    """
    with suppress(FileNotFoundError):
        paths = list(folder.iterdir())
        make_folder(target)
        for path in paths:
            path.replace(target / path.name)
        folder.rmdir()


def _changed(folder: Path) -> dict[str, float]:
    """The jobs that have a folder in this one, and when each was changed."""
    changed = {}
    for job_id in job_ids_in(folder):
        with suppress(FileNotFoundError):  # another process was quicker
            changed[job_id] = (folder / folder_name(job_id)).stat().st_mtime
    return changed
