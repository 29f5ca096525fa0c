"""The job table: adding, finding and removing jobs.

The table is the queue and holds the state and the history of every job; it is the single source of
truth. Updates by workers are in `leases`.
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
SUBMISSION_RETENTION_S = 24 * 3600.0  # how long it is kept after its job is deleted
# Where a client is waiting, report an unreachable database quickly rather than retry for long.
SHORT_RETRY_TIMEOUT_S = 3.0

# All columns of a job, and the time of the query.
JOB_COLUMNS = (*jobs.c, NOW.label("read_at"))
IS_ACCEPTED = jobs.c.state != "receiving"


class JobTable:
    """The accepted jobs. Every method may raise DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: str) -> Job | None:
        query = sa.select(*JOB_COLUMNS).where(jobs.c.id == job_id, IS_ACCEPTED)

        def work(connection: sa.Connection) -> Job | None:
            row = connection.execute(query).mappings().first()
            return None if row is None else job_from_row(row)

        return await self._database.read(work, SHORT_RETRY_TIMEOUT_S)

    def submit(self, job_id: str, upload: Upload, connection: sa.Connection) -> None:
        """Queues a job whose uploads are complete.

        Raises:
            UploadExpiredError: the row was deleted because the lease of the upload expired.
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
        """Adds a completed job that reuses the result of `original`.

        Raises:
            UploadExpiredError: the row was deleted because the lease of the upload expired.
        """
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
        """Returns the newest completed job with this content hash and model version, if any."""
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

        return await self._database.read(work, SHORT_RETRY_TIMEOUT_S)

    async def delete(self, job_id: str) -> bool:
        """Deletes the job in any state; returns False if it does not exist."""

        def work(connection: sa.Connection) -> bool:
            return bool(delete_jobs(connection, [job_id]))

        return await self._database.write(work, SHORT_RETRY_TIMEOUT_S)


def record_event(connection: sa.Connection, job: Job) -> None:
    """Stores the current status document for the job's event stream."""
    event = {"job_id": job.id, "revision": job.revision, "document": status_document(job)}
    connection.execute(sa.insert(events).values(event))


def delete_jobs(connection: sa.Connection, job_ids: Sequence[str]) -> list[str]:
    """Deletes jobs; returns those that existed. Their submissions are kept for a day."""
    removed = connection.execute(sa.delete(jobs).where(jobs.c.id.in_(job_ids)).returning(jobs.c.id))
    found = list(removed.scalars())
    connection.execute(sa.delete(events).where(events.c.job_id.in_(found)))
    connection.execute(
        sa.update(submissions)
        .where(submissions.c.job_id.in_(found))
        .values(forget_at=NOW + SUBMISSION_RETENTION_S)
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
    # This may be a retry after the reply to a successful commit was lost. Then the job exists.
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
    """Converts a row of JOB_COLUMNS to a job."""
    first, second = (Window(start, end) for start, end in row["windows"])
    extension1, extension2 = row["extensions"]
    kept = {field: row[field] for field in Job.__dataclass_fields__}
    return Job(**kept | {"windows": (first, second), "extensions": (extension1, extension2)})
