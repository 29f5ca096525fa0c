"""A job, and its status document in the API."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator.audio.window import Window

State = Literal["receiving", "queued", "running", "completed", "failed"]
FINAL = ("completed", "failed")
COMPLETED = "Music generation complete!"
LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Job:
    """One row of the job table.

    Attributes:
        revision: incremented by every change that is visible in the status.
        extensions: file extensions of both uploads, with the dot.
        windows: the selected window of each track.
        content: hash of both files and windows.
        wanted_version: the requested model version; None for the default version at the time of the
            inference request.
        model_version, codec: the model version that generates the music, and its codec; None before
            generation starts.
        converted: whether both tracks have been converted to WAV files of their windows.
        bytes: approximate size of the job's files.
        lease: number of times that a worker has claimed the job. It identifies the current lease
            and is checked on every write of the worker.
        attempts: number of attempts that ended in success or in a failure that counts as an
            attempt. Attempts that end with a shutdown or the death of the process do not count.
        deaths: number of times that the lease expired while the job was running, usually because
            the process had died.
        created_at, started_at, finished_at, read_at: seconds since 1970 by the database's clock.
        timings: duration of each stage in seconds.
    """

    id: str
    state: State
    revision: int
    progress: int
    message: str
    error_code: str | None
    extensions: tuple[str, str]
    windows: tuple[Window, Window]
    content: str
    wanted_version: str | None
    model_version: str | None
    codec: str | None
    converted: bool
    bytes: int
    lease: int
    attempts: int
    deaths: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    read_at: float
    timings: dict[str, float]


@dataclass(frozen=True)
class Upload:
    """The uploaded input of a job; `size` is in bytes, the other attributes are as in Job."""

    extensions: tuple[str, str]
    windows: tuple[Window, Window]
    content: str
    wanted_version: str | None
    size: int


def status_document(job: Job) -> dict[str, Any]:
    """Returns the status document, except the fields that can change within a revision."""
    document = {
        "job_id": job.id,
        "status": job.state,
        "progress": job.progress,
        "message": job.message,
        "created_at": iso_time(job.created_at),
        "started_at": None if job.started_at is None else iso_time(job.started_at),
        "finished_at": None if job.finished_at is None else iso_time(job.finished_at),
        "attempts": job.attempts,
        "model_version": job.model_version or job.wanted_version,
        "codec": job.codec,
        "timings": job.timings,
    }
    if job.error_code is not None:
        document["error_code"] = job.error_code
    return document


def iso_time(seconds: float) -> str:
    """Formats seconds since 1970 as ISO 8601 in UTC, at most 9999-12-31."""
    return datetime.fromtimestamp(min(seconds, LATEST), UTC).isoformat(timespec="milliseconds")
