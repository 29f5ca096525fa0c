"""The files of jobs, in a local directory, or in a bucket so that any host can run any job.

    upload      track1.<ext>   track2.<ext>     the uploaded tracks
    window      window1.wav    window2.wav      the converted window of each track
    part        generated.<lease>.part          a result that is not accepted yet
    generated   generated.wav                   the music

Every job has a workspace, a directory of plain files, as ffmpeg needs files on disk. With a local
directory, the workspace is the storage itself. With a bucket, it is a scratch directory of this
host: persist() stores a file in the bucket, and fetch() downloads it to hosts that lack it.

A stored file is never modified in place, because two jobs may share its bytes through a hard link.

The directory or bucket belongs to one database, which a marker file identifies. The files of a job
without a row in the database are quarantined before they are deleted, because the row may have been
lost by mistake:

    .musiclab-database          the marker
    quarantine/music_<job>      a directory with the files; in a bucket, an object that marks them
"""

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from obstore.exceptions import BaseError

from orchestrator.concurrency import run_in_thread
from orchestrator.errors import SettingsError, StorageUnavailableError

GENERATED = "generated.wav"
JOB_PREFIX = "music_"
MARKER = ".musiclab-database"
QUARANTINE = "quarantine"


def upload_name(track: int, extension: str) -> str:
    """Returns the file name of an upload; the extension includes its dot."""
    return f"track{track}{extension}"


def window_name(track: int) -> str:
    """Returns the file name of a converted window, which differs from that of any upload."""
    return f"window{track}.wav"


def part_name(lease: int) -> str:
    """Returns the file name of a result that was generated under a lease and not accepted yet."""
    return f"generated.{lease}.part"


@dataclass(frozen=True)
class DiskUsage:
    """Total and free bytes of a disk."""

    size: int
    free: int


class JobStorage(ABC):
    """Stores the files of jobs.

    Methods raise ValueError for names that are not plain file names. All asynchronous methods raise
    StorageUnavailableError if files cannot be read or written at the moment.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def workspace(self, job_id: str) -> Path:
        """Returns the directory where this host reads and writes the job's files.

        create() creates it.
        """
        return self._root / folder_name(job_id)

    @abstractmethod
    async def claim(self, database_id: str) -> None:
        """Records this database as the owner of the files, unless they have an owner.

        Raises:
            SettingsError: the files belong to another database.
        """

    async def create(self, job_id: str) -> None:
        """Creates the workspace if it does not exist."""
        with storage_errors(f"creating a directory for job {job_id}"):
            await run_in_thread(make_folder, self.workspace(job_id))

    @abstractmethod
    async def persist(self, job_id: str, *names: str) -> None:
        """Stores files of the workspace durably.

        Raises:
            FileNotFoundError: the file does not exist in the workspace.
        """

    @abstractmethod
    async def fetch(self, job_id: str, name: str) -> Path:
        """Returns the path of a file in the workspace, downloading the file if necessary.

        Raises:
            FileNotFoundError: the file is not stored.
        """

    @abstractmethod
    async def read(self, job_id: str, name: str) -> bytes:
        """Returns the content of a stored file.

        Raises:
            FileNotFoundError: the file is not stored.
        """

    @abstractmethod
    async def list_names(self, job_id: str) -> set[str]:
        """Returns the names of the stored files."""

    @abstractmethod
    async def rename(self, job_id: str, old: str, new: str) -> None:
        """Renames a stored file; replaces `new` if it exists.

        Raises:
            FileNotFoundError: `old` is not stored.
        """

    @abstractmethod
    async def copy(self, job_id: str, name: str, to_job_id: str) -> None:
        """Copies a stored file to another job, and creates that job's workspace.

        Raises:
            FileNotFoundError: the file is not stored.
        """

    @abstractmethod
    async def delete(self, job_id: str, *names: str) -> None:
        """Deletes files from the storage and the workspace; missing files are ignored."""

    @abstractmethod
    async def release_workspace(self, job_id: str) -> None:
        """Deletes this host's workspace of the job, but not the stored files."""

    @abstractmethod
    async def remove(self, job_id: str) -> None:
        """Deletes all files of the job, including files written while this runs."""

    @abstractmethod
    async def job_ids(self) -> set[str]:
        """Returns all jobs with stored files or a local workspace, except quarantined ones."""

    @abstractmethod
    async def quarantine(self, job_id: str) -> None:
        """Quarantines the job's files."""

    @abstractmethod
    async def restore(self, job_id: str) -> None:
        """Restores the job's files from quarantine."""

    @abstractmethod
    async def discard(self, job_id: str) -> None:
        """Deletes the job's quarantined files."""

    @abstractmethod
    async def quarantined(self) -> dict[str, float]:
        """Returns the quarantined jobs, each with the time of quarantine in seconds since 1970."""

    async def disk_usage(self) -> DiskUsage:
        """Returns the usage of the disk that uploads are written to."""
        with storage_errors("reading the free disk space"):
            return await run_in_thread(_disk_usage, self._root)

    def _path(self, job_id: str, name: str) -> Path:
        return self.workspace(job_id) / plain_name(name)


def check_owner(owner: str | None, database_id: str, setting: str, place: str, marker: str) -> None:
    if owner != database_id:
        raise SettingsError(
            f"{setting} is {place}, which holds the files of another database; set it to a "
            "location that no other instance of MusicLab uses. If that database no longer exists, "
            f"delete {marker}; its files are then deleted a day later"
        )


@contextmanager
def storage_errors(operation: str) -> Iterator[None]:
    """Converts exceptions of an operation to FileNotFoundError or StorageUnavailableError."""
    try:
        yield
    except FileNotFoundError as error:
        if "<Code>NoSuchBucket<" in str(error):
            raise StorageUnavailableError(
                f"{operation} failed: the bucket does not exist"
            ) from error
        raise FileNotFoundError(f"{operation} failed: the file does not exist") from error
    except (OSError, BaseError) as error:
        raise StorageUnavailableError(f"{operation} failed: {one_line_reason(error)}") from error


def one_line_reason(error: Exception) -> str:
    """Returns an error message in one line, without the response body that S3 errors include."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = str(error).partition("\n")[0].partition("<?xml")[0].rstrip(": ")
    message = re.search("<Message>(.*?)</Message>", str(error))
    return f"{line}: {message[1]}" if message else line


def plain_name(name: str) -> str:
    """Returns the name if it is a plain file name and not hidden.

    Hidden names are reserved for temporary files.

    Raises:
        ValueError: the name is hidden or not a plain file name.
    """
    if not name or name.startswith(".") or Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def folder_name(job_id: str) -> str:
    return plain_name(JOB_PREFIX + job_id)


def job_ids_of(folders: set[str]) -> set[str]:
    return {each.removeprefix(JOB_PREFIX) for each in folders if each.startswith(JOB_PREFIX)}


def make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _disk_usage(root: Path) -> DiskUsage:
    make_folder(root)
    usage = shutil.disk_usage(root)
    return DiskUsage(usage.total, usage.free)
