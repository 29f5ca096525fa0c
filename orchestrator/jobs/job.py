"""A job, and its status as the API shows it."""

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
    """One row.

    Attributes:
        revision: grows by one with every change that status shows.
        extensions: of both uploads, with the dot.
        windows: the chosen window of each track.
        content: hash of both files and windows.
        wanted_version: of the model; None for whichever is the default when it is asked.
        model_version, codec: what made the music, once it is being made.
        converted: whether both tracks are WAV files of just their windows by now.
        bytes: of its files, about.
        lease: how often a worker has taken it; the number under which that worker writes.
        attempts: how often it was tried to an end, without what was handed back or died.
        deaths: how often a process that ran it died.
        created_at, started_at, finished_at, read_at: seconds since 1970 by the database's clock.
        timings: seconds by stage.
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
    """What was uploaded for a job; `size` in bytes, the rest as in Job."""

    extensions: tuple[str, str]
    windows: tuple[Window, Window]
    content: str
    wanted_version: str | None
    size: int


def status_document(job: Job) -> dict[str, Any]:
    """The job as the API shows it, without what changes by itself."""
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
    """Seconds since 1970 as ISO 8601 in UTC, which ends with the year 9999."""
    return datetime.fromtimestamp(min(seconds, LATEST), UTC).isoformat(timespec="milliseconds")
