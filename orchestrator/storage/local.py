"""Job storage in a local directory."""

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
    """Stores the files of each job in a directory `music_{job_id}/`.

    list_names() includes files that are written but not persisted yet.
    """

    async def claim(self, database_id: str) -> None:
        marker = self._root / MARKER
        with storage_errors(f"reading the owner of {self._root}"):
            owner = await run_in_thread(_claim, marker, database_id)
        check_owner(owner, database_id, "MUSICLAB_CACHE", str(self._root), str(marker))

    async def persist(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with storage_errors(f"writing files of job {job_id} to disk"):
            await run_in_thread(sync, *paths)

    async def fetch(self, job_id: str, name: str) -> Path:
        path = self._path(job_id, name)
        with storage_errors(f"finding {name} of job {job_id}"):
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
        with storage_errors(f"copying {name} of job {job_id} to job {to_job_id}"):
            await run_in_thread(_link, self._path(job_id, name), self._path(to_job_id, name))

    async def delete(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with storage_errors(f"deleting files of job {job_id}"):
            await run_in_thread(unlink_files, *paths)

    async def release_workspace(self, job_id: str) -> None:
        """Does nothing: the workspace holds the stored files."""

    async def remove(self, job_id: str) -> None:
        with storage_errors(f"deleting the files of job {job_id}"):
            await run_in_thread(remove_folder, self.workspace(job_id))

    async def job_ids(self) -> set[str]:
        with storage_errors("listing the jobs that have files"):
            return await run_in_thread(job_ids_in, self._root)

    async def quarantine(self, job_id: str) -> None:
        with storage_errors(f"quarantining the files of job {job_id}"):
            await run_in_thread(_move, self.workspace(job_id), self._quarantine_path(job_id))

    async def restore(self, job_id: str) -> None:
        with storage_errors(f"restoring the files of job {job_id}"):
            await run_in_thread(_move, self._quarantine_path(job_id), self.workspace(job_id))

    async def discard(self, job_id: str) -> None:
        with storage_errors(f"deleting the quarantined files of job {job_id}"):
            await run_in_thread(remove_folder, self._quarantine_path(job_id))

    async def quarantined(self) -> dict[str, float]:
        with storage_errors("listing the quarantined jobs"):
            return await run_in_thread(_modification_times, self._root / QUARANTINE)

    def _quarantine_path(self, job_id: str) -> Path:
        return self._root / QUARANTINE / folder_name(job_id)


def _claim(marker: Path, database_id: str) -> str:
    """Returns the database ID in the marker; writes `database_id` first if there is no marker."""
    if not marker.exists():
        make_folder(marker.parent)
        part = temporary_path(marker)
        try:
            part.write_text(database_id)
            sync(part)
            _rename_exclusively(part, marker)
            sync(marker)
        finally:
            part.unlink(missing_ok=True)
    return marker.read_text().strip()


def _rename_exclusively(part: Path, marker: Path) -> None:
    """Renames `part` to `marker`, unless another process has created `marker`."""
    try:
        marker.hardlink_to(part)
    except FileExistsError:
        pass
    except OSError:  # the file system does not support hard links
        part.replace(marker)


def _rename(old: Path, new: Path) -> None:
    old.replace(new)
    sync(new)


def _link(source: Path, target: Path) -> None:
    """Hard-links target to source; copies it if the file system does not support hard links."""
    source.stat()  # fail before creating anything if the source is missing
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
    """Moves the files of a directory to another one, which updates the target's modification time.

    Safe to run in several processes at once.
    """
    with suppress(FileNotFoundError):
        paths = list(folder.iterdir())
        make_folder(target)
        for path in paths:
            path.replace(target / path.name)
        folder.rmdir()


def _modification_times(folder: Path) -> dict[str, float]:
    """Returns the jobs with a directory in this one, and the modification time of each."""
    changed = {}
    for job_id in job_ids_in(folder):
        with suppress(FileNotFoundError):  # another process moved or deleted it
            changed[job_id] = (folder / folder_name(job_id)).stat().st_mtime
    return changed
