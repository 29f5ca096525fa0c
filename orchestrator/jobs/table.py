"""The table of jobs: how one is added, found and removed.

The table is the queue, the state and the record; there is no second truth. What a worker does to
its job is in `leases`.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.audio.window import Window
from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, events, jobs, submissions
from orchestrator.errors import UploadExpiredError
from orchestrator.jobs.job import COMPLETED, Job, Upload, status_document

LEASE_S = 15.0
REMEMBERED_S = 24 * 3600.0  # how long a submission outlives its job
# People wait for whoever reads: they are rather told that the database is away.
READ_PATIENCE_S = 3.0

# Every column of a job, and when it was read.
JOB_COLUMNS = (*jobs.c, NOW.label("read_at"))
IS_ACCEPTED = jobs.c.state != "receiving"


class JobTable:
    """The jobs that were accepted. Every method may raise DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: str) -> Job | None:
        query = sa.select(*JOB_COLUMNS).where(jobs.c.id == job_id, IS_ACCEPTED)

        def work(connection: sa.Connection) -> Job | None:
            row = connection.execute(query).mappings().first()
            return None if row is None else job_from_row(row)

        return await self._database.read(work, READ_PATIENCE_S)

    def submit(self, job_id: str, upload: Upload, connection: sa.Connection) -> None:
        """Queue a job whose uploads are complete.

        Raises:
            UploadExpiredError: its row is gone.
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


def record_event(connection: sa.Connection, job: Job) -> None:
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
        record_event(connection, job_from_row(row))
        return
    # Already accepted, when a commit's answer was lost and all this is repeated.
    again = connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id))
    if again.first() is None:
        raise UploadExpiredError("The upload took too long; send it again")


def _uploaded(upload: Upload) -> dict[str, Any]:
    return {
        "extensions": list(upload.extensions),
        "windows": [[window.start, window.end] for window in upload.windows],
        "content": upload.content,
        "wanted_version": upload.wanted_version,
        "bytes": upload.size,
    }


def job_from_row(row: sa.RowMapping) -> Job:
    """A row of the columns JOB_COLUMNS as a job."""
    first, second = (Window(start, end) for start, end in row["windows"])
    extension1, extension2 = row["extensions"]
    kept = {field: row[field] for field in Job.__dataclass_fields__}
    return Job(**kept | {"windows": (first, second), "extensions": (extension1, extension2)})
