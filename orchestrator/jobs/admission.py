"""Who may submit a job now, and what is remembered of those who did.

The limits are counted in the database, so that they hold across all hosts that serve the API.
"""

import ipaddress
import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs, submissions
from orchestrator.errors import RequestError
from orchestrator.jobs.table import LEASE_S, READ_PATIENCE_S, REMEMBERED_S, delete_jobs
from orchestrator.storage.base import JobStorage

RATE_WINDOW_S = 60.0
QUEUE_RETRY_S = 10


@dataclass(frozen=True)
class Limits:
    """The most that is taken; 0 is no limit.

    Attributes:
        per_minute: requests of one client.
        queued: jobs that wait, or are being uploaded.
        stored_bytes: of all jobs' files.
    """

    per_minute: int
    queued: int
    stored_bytes: int


@dataclass(frozen=True)
class Submission:
    """An accepted request that carried an idempotency key; `body` is a hash of all it sent."""

    job_id: str
    body: str


class Admission:
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
            RequestError: a limit is reached: `too_many_requests`, `queue_full`, `storage_full`.
        """

        def work(connection: sa.Connection) -> None:
            self._database.serialise(connection)
            if not repeated:
                self._check_rate(connection, _network(client))
                self._check_room(connection, announced)
            row = {
                "job_id": job_id,
                "client": None if repeated else _network(client),
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
            RequestError: `too_many_requests`.
        """
        if not self._limits.per_minute:
            return

        def work(connection: sa.Connection) -> None:
            self._database.serialise(connection)
            self._check_rate(connection, _network(client))
            row = {
                "job_id": uuid.uuid4().hex,  # of no job
                "client": _network(client),
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

    def _check_rate(self, connection: sa.Connection, client: str) -> None:
        limit = self._limits.per_minute
        if not limit:
            return
        # The oldest of the last `limit` requests: only once it is a minute old is there room.
        query = (
            sa.select(submissions.c.at + RATE_WINDOW_S - NOW)
            .where(submissions.c.client == client, submissions.c.at > NOW - RATE_WINDOW_S)
            .order_by(submissions.c.at.desc())
            .offset(limit - 1)
            .limit(1)
        )
        wait = connection.execute(query).scalar()
        if wait is not None:
            seconds = max(1, int(wait) + 1)
            raise RequestError(
                "too_many_requests",
                f"Requests to generate or check are limited to {limit} a minute from {client}; "
                f"try again in {seconds} s",
                status=429,
                retry_after_s=seconds,
            )

    def _check_room(self, connection: sa.Connection, announced: int) -> None:
        waiting = sa.func.count().filter(jobs.c.state.in_(("receiving", "queued")))
        stored = sa.func.coalesce(sa.func.sum(jobs.c.bytes), 0)
        row = connection.execute(sa.select(waiting, stored)).one()
        if self._limits.queued and row[0] >= self._limits.queued:
            raise RequestError(
                "queue_full",
                f"{row[0]} jobs are waiting already, as many as may; try again in "
                f"{QUEUE_RETRY_S} s",
                status=503,
                retry_after_s=QUEUE_RETRY_S,
            )
        if self._limits.stored_bytes and row[1] + announced > self._limits.stored_bytes:
            raise RequestError(
                "storage_full",
                f"The files of all jobs have {row[1]:,} bytes of {self._limits.stored_bytes:,}, "
                f"and {announced:,} more do not fit; clean up jobs that are done",
                status=507,
            )


async def check_free_space(files: JobStorage, needed_percent: float) -> None:
    """Keep uploads from filling the disk.

    Raises:
        RequestError: `storage_full`.
        StorageUnavailableError: it cannot be asked.
    """
    disk = await files.disk()
    free = 100 * disk.free / disk.size
    if free < needed_percent:
        raise RequestError(
            "storage_full",
            f"Only {free:.1f} % of the disk are free, and {needed_percent} % have to stay so",
            status=507,
        )


def _network(client: str) -> str:
    """What counts as one client: an IPv4 address, or the network that an IPv6 host has to itself.

    Anybody with IPv6 has 2**64 addresses to choose from.
    """
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return client
