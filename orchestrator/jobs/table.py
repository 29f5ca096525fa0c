"""Jobs: what is known of one, how it is added, found, watched and removed.

The table is the queue, the state and the record; there is no second truth. What a worker does to
its job is in `leases`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from orchestrator.audio.window import Window
from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, events, jobs, submissions
from orchestrator.errors import RequestError

LEASE_S = 15.0
REMEMBERED_S = 24 * 3600.0  # how long a submission outlives its job
# People wait for whoever reads: they are rather told that the database is away.
READ_PATIENCE_S = 3.0

State = Literal["receiving", "queued", "running", "completed", "failed"]
FINAL = ("completed", "failed")


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


# Every column of a job, and when it was read.
JOB_COLUMNS = (*jobs.c, NOW.label("read_at"))
ACCEPTED = jobs.c.state != "receiving"


class JobTable:
    """The jobs that were accepted. Every method may raise DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: str) -> Job | None:
        query = sa.select(*JOB_COLUMNS).where(jobs.c.id == job_id, ACCEPTED)

        def work(connection: sa.Connection) -> Job | None:
            row = connection.execute(query).mappings().first()
            return None if row is None else job_from_row(row)

        return await self._database.read(work, READ_PATIENCE_S)

    def submit(self, job_id: str, upload: Upload, connection: sa.Connection) -> None:
        """Queue a job whose uploads are complete.

        Raises:
            RequestError: `upload_timeout`; its row is gone.
        """
        values = _uploaded(upload) | {
            "state": "queued",
            "message": "Waiting in the queue",
            "run_at": NOW,
            "created_at": NOW,
        }
        _accept(connection, job_id, values)

    def submit_completed(
        self, job_id: str, upload: Upload, original: Job, connection: sa.Connection
    ) -> None:
        """Add a job whose music another one has made already."""
        values = _uploaded(upload) | {
            "state": "completed",
            "progress": 100,
            "message": COMPLETED,
            "model_version": original.model_version,
            "codec": original.codec,
            "bytes": original.bytes,
            "created_at": NOW,
            "started_at": NOW,
            "finished_at": NOW,
        }
        _accept(connection, job_id, values)

    async def find_completed(self, content: str, version: str) -> Job | None:
        """The newest job that made music of the same content with that version of the model."""
        query = (
            sa.select(*JOB_COLUMNS)
            .where(
                jobs.c.content == content,
                jobs.c.model_version == version,
                jobs.c.state == "completed",
            )
            .order_by(jobs.c.finished_at.desc())
            .limit(1)
        )

        def work(connection: sa.Connection) -> Job | None:
            row = connection.execute(query).mappings().first()
            return None if row is None else job_from_row(row)

        return await self._database.read(work, READ_PATIENCE_S)

    async def delete(self, job_id: str) -> bool:
        """Remove the job in whatever state; False if there is none."""

        def work(connection: sa.Connection) -> bool:
            return bool(delete_jobs(connection, [job_id]))

        return await self._database.write(work, READ_PATIENCE_S)


LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
COMPLETED = "Music generation complete!"


def record(connection: sa.Connection, job: Job) -> None:
    """Keep what the status says now, for those who follow the job's events."""
    event = {"job_id": job.id, "revision": job.revision, "document": status_document(job)}
    connection.execute(sa.insert(events).values(event))


def delete_jobs(connection: sa.Connection, job_ids: Sequence[str]) -> list[str]:
    """Remove jobs; returns those that were there. Their submissions are remembered for a day."""
    removed = connection.execute(sa.delete(jobs).where(jobs.c.id.in_(job_ids)).returning(jobs.c.id))
    found = list(removed.scalars())
    connection.execute(sa.delete(events).where(events.c.job_id.in_(found)))
    connection.execute(
        sa.update(submissions)
        .where(submissions.c.job_id.in_(found))
        .values(forget_at=NOW + REMEMBERED_S)
    )
    return found


def _accept(connection: sa.Connection, job_id: str, values: dict[str, Any]) -> None:
    accepted = connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state == "receiving")
        .values(values | {"revision": 1, "owner": None, "lease_until": None})
        .returning(*JOB_COLUMNS)
    )
    row = accepted.mappings().first()
    if row is not None:
        record(connection, job_from_row(row))
        return
    # Already accepted, when a commit's answer was lost and all this is repeated.
    again = connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id))
    if again.first() is None:
        raise RequestError("upload_timeout", "The upload took too long; send it again", 408)


def _uploaded(upload: Upload) -> dict[str, Any]:
    return {
        "extensions": list(upload.extensions),
        "windows": [[window.start, window.end] for window in upload.windows],
        "content": upload.content,
        "wanted_version": upload.wanted_version,
        "bytes": upload.size,
    }


def job_from_row(row: sa.RowMapping) -> Job:
    """A row of the columns JOB as a job."""
    first, second = (Window(start, end) for start, end in row["windows"])
    extension1, extension2 = row["extensions"]
    kept = {field: row[field] for field in Job.__dataclass_fields__}
    return Job(**kept | {"windows": (first, second), "extensions": (extension1, extension2)})


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
