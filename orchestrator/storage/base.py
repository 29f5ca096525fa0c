"""The files of jobs, in a local folder, or in a bucket so that any host can run any job.

    upload      track1.<ext>   track2.<ext>     what came in
    window      window1.wav    window2.wav      the sixteen seconds of each, converted
    part        generated.<lease>.part          a result that is not accepted yet
    generated   generated.wav                   the music

Every job has a workspace, a folder of plain files, since ffmpeg reads and writes nothing else. With
a local folder that is where the files are kept. With a bucket it is this host's scratch: a file
counts once keep() has put it into the bucket, and fetch() brings it to hosts that lack it.

A file is written under a name of its own and then left as it is: two jobs may share its bytes.

The folder or bucket belongs to one database, which a marker in it names. Files of jobs that are
unknown there may be somebody's all the same, and are kept in quarantine for a while:

    .musiclab-database          the marker
    quarantine/music_<job>      a folder with the files; in a bucket, an object that marks them
"""

import asyncio
import errno
import os
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, S3Store

from orchestrator.errors import SettingsError, StorageUnavailableError

GENERATED = "generated.wav"
JOB_PREFIX = "music_"
MARKER = ".musiclab-database"
QUARANTINE = "quarantine"

# A part of an upload has to be sent and answered within the read timeout, and so has every piece
# of a download. No retry starts after RETRY_FOR, so that an outage is told of within 20 s; until
# then there are as many as fit in, so that a shorter one is not noticed.
CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=10)
DOWNLOAD_TIMEOUT = timedelta(minutes=5)
RETRY_FOR = timedelta(seconds=10)
FIRST_BACKOFF = timedelta(milliseconds=100)
LONGEST_BACKOFF = timedelta(seconds=2)
RETRIES = 100

# Of 5 MB, so that an upload of any size takes 10 MB of memory.
PARTS_AT_ONCE = 2
CHUNK = 2**20

P = ParamSpec("P")
T = TypeVar("T")


def upload_name(track: int, extension: str) -> str:
    """The name of an upload; the extension has its dot."""
    return f"track{track}{extension}"


def window_name(track: int) -> str:
    """The name of a converted window, which no upload can have."""
    return f"window{track}.wav"


def part_name(lease: int) -> str:
    """The name of a result that was made under a lease and is not accepted yet."""
    return f"generated.{lease}.part"


@dataclass(frozen=True)
class DiskUsage:
    """Bytes that a disk has, and those of them that are free."""

    size: int
    free: int


class JobStorage(ABC):
    """Keeps the files of jobs.

    Names are plain file names; others are a ValueError. All methods that wait raise
    StorageUnavailableError where a file cannot be reached or written for now.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def workspace(self, job_id: str) -> Path:
        """The folder where this host reads and writes the job's files; create() makes it."""
        return self._root / _folder_name(job_id)

    @abstractmethod
    async def claim(self, database_id: str) -> None:
        """Let the files belong to this database, unless they belong to another one.

        Raises:
            SettingsError: they do.
        """

    async def create(self, job_id: str) -> None:
        """Make the workspace where there is none."""
        with _faults(f"making a folder for job {job_id}"):
            await _in_thread(_make_folder, self.workspace(job_id))

    @abstractmethod
    async def keep(self, job_id: str, *names: str) -> None:
        """Make files of the workspace outlast a power failure, or this host.

        Raises:
            FileNotFoundError: the workspace has no such file.
        """

    @abstractmethod
    async def fetch(self, job_id: str, name: str) -> Path:
        """The file in the workspace, brought there if need be. FileNotFoundError: there is none."""

    @abstractmethod
    async def read(self, job_id: str, name: str) -> bytes:
        """The bytes that are kept. FileNotFoundError: there are none."""

    @abstractmethod
    async def names(self, job_id: str) -> set[str]:
        """The names of the files that are kept."""

    @abstractmethod
    async def rename(self, job_id: str, old: str, new: str) -> None:
        """Rename a kept file, over another one if need be. FileNotFoundError: `old` is not kept."""

    @abstractmethod
    async def copy(self, job_id: str, name: str, to_job_id: str) -> None:
        """Give another job the same file, and a workspace. FileNotFoundError: it is not kept."""

    @abstractmethod
    async def delete(self, job_id: str, *names: str) -> None:
        """Delete files wherever they are; that some are missing is no error."""

    @abstractmethod
    async def release(self, job_id: str) -> None:
        """Drop what this host holds of the job besides the kept files."""

    @abstractmethod
    async def remove(self, job_id: str) -> None:
        """Delete everything of the job, what comes while this runs included."""

    @abstractmethod
    async def job_ids(self) -> set[str]:
        """All jobs that have files, or a workspace on this host; not those in quarantine."""

    @abstractmethod
    async def quarantine(self, job_id: str) -> None:
        """Set the job's files aside."""

    @abstractmethod
    async def restore(self, job_id: str) -> None:
        """Put the job's files back from the quarantine."""

    @abstractmethod
    async def discard(self, job_id: str) -> None:
        """Delete the job's files in quarantine."""

    @abstractmethod
    async def quarantined(self) -> dict[str, float]:
        """The jobs whose files are in quarantine; since when, in seconds since 1970."""

    async def disk(self) -> DiskUsage:
        """The disk that uploads are written to."""
        with _faults("asking for the free space on the disk"):
            return await _in_thread(_disk, self._root)

    def _path(self, job_id: str, name: str) -> Path:
        return self.workspace(job_id) / _plain(name)


class LocalStorage(JobStorage):
    """Keeps them in a folder: `music_{job_id}/` for each job. Its names() are also of files that
    lie there and are not kept yet.
    """

    async def claim(self, database_id: str) -> None:
        marker = self._root / MARKER
        with _faults(f"looking for the database that {self._root} belongs to"):
            owner = await _in_thread(_claim, marker, database_id)
        _check_owner(owner, database_id, "MUSICLAB_CACHE", str(self._root), str(marker))

    async def keep(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with _faults(f"writing files of job {job_id} to disk"):
            await _in_thread(_sync, *paths)

    async def fetch(self, job_id: str, name: str) -> Path:
        path = self._path(job_id, name)
        with _faults(f"looking for {name} of job {job_id}"):
            await _in_thread(path.stat)
        return path

    async def read(self, job_id: str, name: str) -> bytes:
        with _faults(f"reading {name} of job {job_id}"):
            return await _in_thread(self._path(job_id, name).read_bytes)

    async def names(self, job_id: str) -> set[str]:
        with _faults(f"listing the files of job {job_id}"):
            return await _in_thread(_names, self.workspace(job_id))

    async def rename(self, job_id: str, old: str, new: str) -> None:
        with _faults(f"renaming {old} of job {job_id} to {new}"):
            await _in_thread(_rename, self._path(job_id, old), self._path(job_id, new))

    async def copy(self, job_id: str, name: str, to_job_id: str) -> None:
        with _faults(f"giving {name} of job {job_id} to job {to_job_id}"):
            await _in_thread(_link, self._path(job_id, name), self._path(to_job_id, name))

    async def delete(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with _faults(f"deleting files of job {job_id}"):
            await _in_thread(_unlink, *paths)

    async def release(self, job_id: str) -> None:
        """Nothing: the workspace is where the files are kept."""

    async def remove(self, job_id: str) -> None:
        with _faults(f"removing the files of job {job_id}"):
            await _in_thread(_remove, self.workspace(job_id))

    async def job_ids(self) -> set[str]:
        with _faults("listing the jobs that have files"):
            return await _in_thread(_job_ids, self._root)

    async def quarantine(self, job_id: str) -> None:
        with _faults(f"setting the files of job {job_id} aside"):
            await _in_thread(_move, self.workspace(job_id), self._set_aside(job_id))

    async def restore(self, job_id: str) -> None:
        with _faults(f"putting the files of job {job_id} back"):
            await _in_thread(_move, self._set_aside(job_id), self.workspace(job_id))

    async def discard(self, job_id: str) -> None:
        with _faults(f"removing the files of job {job_id} from the quarantine"):
            await _in_thread(_remove, self._set_aside(job_id))

    async def quarantined(self) -> dict[str, float]:
        with _faults("listing the jobs in quarantine"):
            return await _in_thread(_changed, self._root / QUARANTINE)

    def _set_aside(self, job_id: str) -> Path:
        return self._root / QUARANTINE / _folder_name(job_id)


class S3Storage(JobStorage):
    """Keeps them in a bucket: objects `music_{job_id}/<name>`, below the prefix of the store.

    Args:
        store: the bucket; bounds its own retries.
        scratch: this host's folder of workspaces.
        url: of the bucket, for sentences.
    """

    def __init__(self, store: ObjectStore, scratch: Path, url: str) -> None:
        super().__init__(scratch)
        self._store = store
        self._url = url

    async def claim(self, database_id: str) -> None:
        with _faults(f"looking for the database that {self._url} belongs to"):
            owner = await self._owner() or await self._mark(database_id)
        marker = f"the object {MARKER}"
        _check_owner(owner, database_id, "MUSICLAB_FILES_URL", self._url, marker)

    async def _owner(self) -> str | None:
        try:
            found = await self._store.get_async(MARKER)
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket<" in str(error):
                raise
            return None
        return bytes(await found.bytes_async()).decode(errors="replace").strip()

    async def _mark(self, database_id: str) -> str | None:
        with suppress(AlreadyExistsError):  # another process was quicker
            await self._store.put_async(MARKER, database_id.encode(), mode="create")
        return await self._owner()

    async def keep(self, job_id: str, *names: str) -> None:
        for name in names:
            path, key = self._path(job_id, name), _key(job_id, name)
            with _faults(f"uploading {name} of job {job_id}"):
                await self._store.put_async(key, path, max_concurrency=PARTS_AT_ONCE)

    async def fetch(self, job_id: str, name: str) -> Path:
        path = self._path(job_id, name)
        with _faults(f"downloading {name} of job {job_id}"):
            if not await _in_thread(path.exists):
                await self._download(_key(job_id, name), path)
        return path

    async def read(self, job_id: str, name: str) -> bytes:
        """From the bucket alone, which holds what is kept."""
        with _faults(f"reading {name} of job {job_id}"):
            found = await self._store.get_async(_key(job_id, name))
            return bytes(await found.bytes_async())

    async def names(self, job_id: str) -> set[str]:
        with _faults(f"listing the files of job {job_id}"):
            return {key.rpartition("/")[2] for key in await self._keys(job_id)}

    async def rename(self, job_id: str, old: str, new: str) -> None:
        with _faults(f"renaming {old} of job {job_id} to {new}"):
            await self._store.copy_async(_key(job_id, old), _key(job_id, new))
            await self._store.delete_async([_key(job_id, old)])
            await _in_thread(_unlink, self._path(job_id, old), self._path(job_id, new))

    async def copy(self, job_id: str, name: str, to_job_id: str) -> None:
        with _faults(f"giving {name} of job {job_id} to job {to_job_id}"):
            await self._store.copy_async(_key(job_id, name), _key(to_job_id, name))
        await self.create(to_job_id)

    async def delete(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with _faults(f"deleting files of job {job_id}"):
            await self._store.delete_async([_key(job_id, name) for name in names])
            await _in_thread(_unlink, *paths)

    async def release(self, job_id: str) -> None:
        with _faults(f"removing what this host holds of job {job_id}"):
            await _in_thread(_remove, self.workspace(job_id))

    async def remove(self, job_id: str) -> None:
        await self.release(job_id)  # first, so that nothing more is uploaded from here
        with _faults(f"removing the files of job {job_id}"):
            while keys := await self._keys(job_id):
                await self._store.delete_async(keys)

    async def job_ids(self) -> set[str]:
        with _faults("listing the jobs that have files"):
            # Not by folder: some servers go on listing a folder whose objects are all deleted.
            listed = await self._store.list().collect_async()
            here = await _in_thread(_job_ids, self._root)
        kept = _ids({each["path"].partition("/")[0] for each in listed})
        return here | (kept - _ids({each["path"].rpartition("/")[2] for each in listed}))

    async def quarantine(self, job_id: str) -> None:
        """Marks them: an object cannot be moved."""
        await self.release(job_id)
        with _faults(f"setting the files of job {job_id} aside"):
            if await self._keys(job_id):
                await self._store.put_async(_mark_of(job_id), b"")

    async def restore(self, job_id: str) -> None:
        with _faults(f"putting the files of job {job_id} back"):
            await self._store.delete_async([_mark_of(job_id)])

    async def discard(self, job_id: str) -> None:
        await self.remove(job_id)
        await self.restore(job_id)

    async def quarantined(self) -> dict[str, float]:
        with _faults("listing the jobs in quarantine"):
            listed = await self._store.list(QUARANTINE).collect_async()
        return {
            each["path"].rpartition("/")[2].removeprefix(JOB_PREFIX): (
                each["last_modified"].timestamp()
            )
            for each in listed
        }

    async def _keys(self, job_id: str) -> list[str]:
        listed = await self._store.list(_folder_name(job_id)).collect_async()
        return [each["path"] for each in listed]

    async def _download(self, key: str, path: Path) -> None:
        """Bring an object to a path so that it is whole or not there."""
        found = await self._store.get_async(key)
        part = await _in_thread(_new_part, path)
        try:
            with part.open("wb") as file:
                async for chunk in found.stream(min_chunk_size=CHUNK):
                    await _in_thread(file.write, chunk)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def open_storage(url: str | None, cache: Path, scratch: Path) -> JobStorage:
    """The files at an URL: `s3://bucket/prefix`, or none for the folder `cache`.

    Keys, endpoint and region come from the environment (`AWS_*`). Nothing is contacted yet.

    Raises:
        SettingsError: the URL, or what the environment says of the bucket, cannot be used.
    """
    if not url:
        return LocalStorage(cache)
    fitting = re.fullmatch(r"s3://([\w.-]+)(?:/([^?#]*))?", url)
    if fitting is None:
        raise SettingsError(
            f"MUSICLAB_FILES_URL is {url!r}; it has to be s3://bucket or s3://bucket/prefix, or "
            "empty for the folder MUSICLAB_CACHE"
        )
    try:
        store = S3Store(
            fitting[1],
            prefix=fitting[2],
            client_options={
                "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": READ_TIMEOUT,
                "timeout": DOWNLOAD_TIMEOUT,
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": RETRY_FOR,
                "backoff": {"init_backoff": FIRST_BACKOFF, "max_backoff": LONGEST_BACKOFF},
            },
        )
    except (BaseError, ValueError) as error:
        raise SettingsError(
            f"MUSICLAB_FILES_URL is {url!r}, and its bucket cannot be used as the AWS_* variables "
            f"say: {_reason(error)}"
        ) from None
    return S3Storage(store, scratch, url)


def _check_owner(
    owner: str | None, database_id: str, setting: str, place: str, marker: str
) -> None:
    if owner != database_id:
        raise SettingsError(
            f"{setting} is {place}, which holds the files of another database; set it to a place "
            f"that no other MusicLab uses. If that database is gone for good, delete {marker}: its "
            "files are then deleted a day later"
        )


@contextmanager
def _faults(attempt: str) -> Iterator[None]:
    """Turns what went wrong with an attempt into one of the two errors that callers expect."""
    try:
        yield
    except FileNotFoundError as error:
        if "<Code>NoSuchBucket<" in str(error):
            raise StorageUnavailableError(f"{attempt} failed: there is no such bucket") from error
        raise FileNotFoundError(f"{attempt} failed: there is no such file") from error
    except (OSError, BaseError) as error:
        raise StorageUnavailableError(f"{attempt} failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What an error says in one line; a bucket's has its answer and debugging notes below."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = str(error).partition("\n")[0].partition("<?xml")[0].rstrip(": ")
    message = re.search("<Message>(.*?)</Message>", str(error))
    return f"{line}: {message[1]}" if message else line


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what may block. Cancelled, it is waited for, so that nothing is written unseen later."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def _plain(name: str) -> str:
    """The name, if it is one of a file, and not hidden as the parts are that are written here."""
    if not name or name.startswith(".") or Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def _folder_name(job_id: str) -> str:
    return _plain(JOB_PREFIX + job_id)


def _key(job_id: str, name: str) -> str:
    return f"{_folder_name(job_id)}/{_plain(name)}"


def _mark_of(job_id: str) -> str:
    return f"{QUARANTINE}/{_folder_name(job_id)}"


def _ids(folders: set[str]) -> set[str]:
    return {each.removeprefix(JOB_PREFIX) for each in folders if each.startswith(JOB_PREFIX)}


def _claim(marker: Path, database_id: str) -> str:
    """The database that a marker names, which is this one where there was no marker."""
    if not marker.exists():
        part = _new_part(marker)
        try:
            part.write_text(database_id)
            _sync(part)
            _exclusive(part, marker)
            _sync(marker)
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


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _new_part(path: Path) -> Path:
    """A hidden name beside a path, for what shall appear there whole; makes the folder."""
    _make_folder(path.parent)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _sync(*paths: Path) -> None:
    """Make files, and the folders they are in, outlast a power failure."""
    folders = {above for path in paths for above in (path.parent, path.parent.parent)}
    for path in [*paths, *folders]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename(old: Path, new: Path) -> None:
    old.replace(new)
    _sync(new)


def _link(source: Path, target: Path) -> None:
    """Make target the same file as source, or a copy where the file system knows no links."""
    source.stat()  # before anything is made, should it be missing
    part = _new_part(target)
    try:
        try:
            part.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, part)
        part.replace(target)
        _sync(target)
    finally:
        part.unlink(missing_ok=True)  # still there after a failure, or when target was source


def _unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Delete a folder, though others may write to it or delete in it meanwhile."""
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def _move(folder: Path, target: Path) -> None:
    """Move the files of a folder into another folder, whose modification time becomes now.

    Several processes may do so at once.
    """
    with suppress(FileNotFoundError):
        paths = list(folder.iterdir())
        _make_folder(target)
        for path in paths:
            path.replace(target / path.name)
        folder.rmdir()


def _changed(folder: Path) -> dict[str, float]:
    """The jobs that have a folder in this one, and when each was changed."""
    changed = {}
    for job_id in _job_ids(folder):
        with suppress(FileNotFoundError):  # another process was quicker
            changed[job_id] = (folder / _folder_name(job_id)).stat().st_mtime
    return changed


def _names(folder: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return set()


def _job_ids(root: Path) -> set[str]:
    return _ids(_names(root))


def _disk(root: Path) -> DiskUsage:
    _make_folder(root)
    usage = shutil.disk_usage(root)
    return DiskUsage(usage.total, usage.free)
