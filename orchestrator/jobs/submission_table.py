"""The rows of submissions: who submitted what, and under which idempotency key."""

import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs, submissions
from orchestrator.jobs.admission import RATE_WINDOW_S, Limits, client_network
from orchestrator.jobs.table import LEASE_S, READ_PATIENCE_S, REMEMBERED_S, delete_jobs


@dataclass(frozen=True)
class Submission:
    """An accepted request that carried an idempotency key; `body` is a hash of all it sent."""

    job_id: str
    body: str


class SubmissionTable:
    """Counts and remembers submissions. Every method may raise DatabaseUnavailableError."""

    def __init__(self, database: Database, owner: str, limits: Limits) -> None:
        self._database = database
        self._owner = owner
        self._limits = limits

    async def admit(self, job_id: str, client: str, announced: int, *, repeated: bool) -> None:
        """Make the row under which the uploads may come in.

        Args:
            job_id: the new job.
            client: network address of who asks.
            announced: bytes that are about to be uploaded.
            repeated: the request was accepted before, so that no limit may refuse it.

        Raises:
            RateLimitError, QueueFullError, StorageFullError: a limit is reached.
        """

        def work(connection: sa.Connection) -> None:
            self._database.serialise(connection)
            if not repeated:
                self._limits.check_rate(connection, client_network(client))
                self._limits.check_room(connection, announced)
            row = {
                "job_id": job_id,
                "client": None if repeated else client_network(client),
                "at": NOW,
                "forget_at": NOW + REMEMBERED_S,
            }
            connection.execute(sa.insert(submissions).values(row))
            uploading = {
                "id": job_id,
                "state": "receiving",
                "owner": self._owner,
                "lease_until": NOW + LEASE_S,
                "created_at": NOW,
                "bytes": announced,
            }
            connection.execute(sa.insert(jobs).values(uploading))

        await self._database.write(work, READ_PATIENCE_S)

    async def count(self, client: str) -> None:
        """Let the rate limit count a request of which nothing else is remembered.

        Raises:
            RateLimitError: the limit is reached.
        """
        if not self._limits.per_minute:
            return

        def work(connection: sa.Connection) -> None:
            self._database.serialise(connection)
            self._limits.check_rate(connection, client_network(client))
            row = {
                "job_id": uuid.uuid4().hex,  # of no job
                "client": client_network(client),
                "at": NOW,
                "forget_at": NOW + RATE_WINDOW_S,
            }
            connection.execute(sa.insert(submissions).values(row))

        await self._database.write(work, READ_PATIENCE_S)

    async def find(self, idempotency_key: str) -> Submission | None:
        """The accepted request with this key."""
        query = sa.select(submissions.c.job_id, submissions.c.body).where(
            submissions.c.idempotency_key == idempotency_key
        )

        def work(connection: sa.Connection) -> Submission | None:
            row = connection.execute(query).first()
            return None if row is None else Submission(*row)

        return await self._database.read(work, READ_PATIENCE_S)

    def remember(
        self, job_id: str, idempotency_key: str | None, body: str, connection: sa.Connection
    ) -> None:
        """Tie the key to the job, in the transaction that accepts it.

        Raises:
            sqlalchemy.exc.IntegrityError: another job has the key.
        """
        connection.execute(
            sa.update(submissions)
            .where(submissions.c.job_id == job_id)
            .values(idempotency_key=idempotency_key, body=body)
        )

    async def withdraw(self, job_id: str) -> bool:
        """Forget an upload that was refused; the rate limit goes on counting it.

        False if it was accepted meanwhile, and is a job by now.
        """
        refused = sa.select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == "receiving")

        def work(connection: sa.Connection) -> bool:
            found = connection.execute(refused.with_for_update()).scalars().all()
            return bool(delete_jobs(connection, list(found)))

        return await self._database.write(work, READ_PATIENCE_S)
