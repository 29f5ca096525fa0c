"""The submissions table: clients and idempotency keys of recent requests."""

import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs, submissions
from orchestrator.jobs.admission import RATE_WINDOW_S, Limits, client_network
from orchestrator.jobs.table import (
    LEASE_S,
    SHORT_RETRY_TIMEOUT_S,
    SUBMISSION_RETENTION_S,
    delete_jobs,
)


@dataclass(frozen=True)
class Submission:
    """An accepted request with an idempotency key; `body` is the hash of its form's content."""

    job_id: str
    body: str


class SubmissionTable:
    """Counts and records submissions. Every method may raise DatabaseUnavailableError."""

    def __init__(self, database: Database, owner: str, limits: Limits) -> None:
        self._database = database
        self._owner = owner
        self._limits = limits

    async def admit(self, job_id: str, client: str, expected_bytes: int, *, repeated: bool) -> None:
        """Creates the row of an upload, before the upload starts.

        Args:
            job_id: ID of the new job.
            client: network address of the client.
            expected_bytes: size of the upload according to its Content-Length; 0 if unknown.
            repeated: whether the request was accepted before. Limits do not apply to it.

        Raises:
            RateLimitError, QueueFullError, StorageFullError: a limit is reached.
        """

        def work(connection: sa.Connection) -> None:
            self._database.serialize(connection)
            if not repeated:
                self._limits.check_rate(connection, client_network(client))
                self._limits.check_room(connection, expected_bytes)
            row = {
                "job_id": job_id,
                "client": None if repeated else client_network(client),
                "at": NOW,
                "forget_at": NOW + SUBMISSION_RETENTION_S,
            }
            connection.execute(sa.insert(submissions).values(row))
            uploading = {
                "id": job_id,
                "state": "receiving",
                "owner": self._owner,
                "lease_until": NOW + LEASE_S,
                "created_at": NOW,
                "bytes": expected_bytes,
            }
            connection.execute(sa.insert(jobs).values(uploading))

        await self._database.write(work, SHORT_RETRY_TIMEOUT_S)

    async def count(self, client: str) -> None:
        """Counts a request towards the rate limit, without recording a job.

        Raises:
            RateLimitError: the limit is reached.
        """
        if not self._limits.per_minute:
            return

        def work(connection: sa.Connection) -> None:
            self._database.serialize(connection)
            self._limits.check_rate(connection, client_network(client))
            row = {
                "job_id": uuid.uuid4().hex,  # belongs to no job
                "client": client_network(client),
                "at": NOW,
                "forget_at": NOW + RATE_WINDOW_S,
            }
            connection.execute(sa.insert(submissions).values(row))

        await self._database.write(work, SHORT_RETRY_TIMEOUT_S)

    async def find(self, idempotency_key: str) -> Submission | None:
        """Returns the accepted request with this key; None if there is none."""
        query = sa.select(submissions.c.job_id, submissions.c.body).where(
            submissions.c.idempotency_key == idempotency_key
        )

        def work(connection: sa.Connection) -> Submission | None:
            row = connection.execute(query).first()
            return None if row is None else Submission(*row)

        return await self._database.read(work, SHORT_RETRY_TIMEOUT_S)

    def record_key(
        self, job_id: str, idempotency_key: str | None, body: str, connection: sa.Connection
    ) -> None:
        """Records the key of a job, in the transaction that accepts the job.

        Raises:
            sqlalchemy.exc.IntegrityError: another job has the key.
        """
        connection.execute(
            sa.update(submissions)
            .where(submissions.c.job_id == job_id)
            .values(idempotency_key=idempotency_key, body=body)
        )

    async def withdraw(self, job_id: str) -> bool:
        """Deletes the row of a rejected upload. The rate limit still counts the request.

        Returns:
            False if the upload has been accepted as a job in the meantime.
        """
        rejected = sa.select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == "receiving")

        def work(connection: sa.Connection) -> bool:
            found = connection.execute(rejected.with_for_update()).scalars().all()
            return bool(delete_jobs(connection, list(found)))

        return await self._database.write(work, SHORT_RETRY_TIMEOUT_S)
