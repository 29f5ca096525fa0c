"""The files of jobs, in a local folder, or in a bucket so that any host can run any job.

    upload      track1.<ext>   track2.<ext>     what came in
    window      window1.wav    window2.wav      the sixteen seconds of each, converted
    part        generated.<lease>.part          a result that is not accepted yet
    generated   generated.wav                   the music

Every job has a workspace, a folder of plain files, since ffmpeg reads and writes nothing else. With
a local folder that is where the files are kept. With a bucket it is this host's scratch: a file
counts once persist() has put it into the bucket, and fetch() brings it to hosts that lack it.

A file is written under a name of its own and then left as it is: two jobs may share its bytes.

The folder or bucket belongs to one database, which a marker in it names. Files of jobs that are
unknown there may be somebody's all the same, and are kept in quarantine for a while:

    .musiclab-database          the marker
    quarantine/music_<job>      a folder with the files; in a bucket, an object that marks them
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
        return self._root / folder_name(job_id)

    @abstractmethod
    async def claim(self, database_id: str) -> None:
        """Let the files belong to this database, unless they belong to another one.

        Raises:
            SettingsError: they do.
        """

    async def create(self, job_id: str) -> None:
        """Make the workspace where there is none."""
        with storage_errors(f"making a folder for job {job_id}"):
            await run_in_thread(make_folder, self.workspace(job_id))

    @abstractmethod
    async def persist(self, job_id: str, *names: str) -> None:
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
    async def list_names(self, job_id: str) -> set[str]:
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
    async def release_workspace(self, job_id: str) -> None:
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

    async def disk_usage(self) -> DiskUsage:
        """The disk that uploads are written to."""
        with storage_errors("asking for the free space on the disk"):
            return await run_in_thread(_disk_usage, self._root)

    def _path(self, job_id: str, name: str) -> Path:
        return self.workspace(job_id) / plain_name(name)


def check_owner(owner: str | None, database_id: str, setting: str, place: str, marker: str) -> None:
    if owner != database_id:
        raise SettingsError(
            f"{setting} is {place}, which holds the files of another database; set it to a place "
            f"that no other MusicLab uses. If that database is gone for good, delete {marker}: its "
            "files are then deleted a day later"
        )


@contextmanager
def storage_errors(attempt: str) -> Iterator[None]:
    """Turns what went wrong with an attempt into one of the two errors that callers expect."""
    try:
        yield
    except FileNotFoundError as error:
        if "<Code>NoSuchBucket<" in str(error):
            raise StorageUnavailableError(f"{attempt} failed: there is no such bucket") from error
        raise FileNotFoundError(f"{attempt} failed: there is no such file") from error
    except (OSError, BaseError) as error:
        raise StorageUnavailableError(f"{attempt} failed: {one_line_reason(error)}") from error


def one_line_reason(error: Exception) -> str:
    """What an error says in one line; a bucket's has its answer and debugging notes below."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = str(error).partition("\n")[0].partition("<?xml")[0].rstrip(": ")
    message = re.search("<Message>(.*?)</Message>", str(error))
    return f"{line}: {message[1]}" if message else line


def plain_name(name: str) -> str:
    """The name, if it is one of a file, and not hidden as the parts are that are written here."""
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
