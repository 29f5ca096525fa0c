"""Whether another job is admitted: limits on requests, waiting jobs and stored bytes.

They are counted in the database, so that they hold across all hosts that serve the API.
"""

import ipaddress
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.schema import NOW, jobs, submissions
from orchestrator.errors import QueueFullError, RateLimitError, StorageFullError
from orchestrator.storage.base import JobStorage

RATE_WINDOW_S = 60.0
QUEUE_RETRY_S = 10


@dataclass(frozen=True)
class Limits:
    """The most that is accepted; 0 is no limit.

    Attributes:
        per_minute: requests of one client.
        queued: jobs that wait, or are being uploaded.
        stored_bytes: of all jobs' files.
    """

    per_minute: int
    queued: int
    stored_bytes: int

    def check_rate(self, connection: sa.Connection, client: str) -> None:
        """Raises RateLimitError if the client has made too many requests within a minute."""
        if not self.per_minute:
            return
        # The oldest of the last `per_minute` requests: only once it is a minute old is there room.
        query = (
            sa.select(submissions.c.at + RATE_WINDOW_S - NOW)
            .where(submissions.c.client == client, submissions.c.at > NOW - RATE_WINDOW_S)
            .order_by(submissions.c.at.desc())
            .offset(self.per_minute - 1)
            .limit(1)
        )
        wait = connection.execute(query).scalar()
        if wait is not None:
            seconds = max(1, int(wait) + 1)
            raise RateLimitError(
                f"Requests to generate or check are limited to {self.per_minute} a minute from "
                f"{client}; try again in {seconds} s",
                retry_after_s=seconds,
            )

    def check_room(self, connection: sa.Connection, announced: int) -> None:
        """Raises QueueFullError or StorageFullError.

        Args:
            connection: to the database.
            announced: bytes that are about to be uploaded.
        """
        waiting = sa.func.count().filter(jobs.c.state.in_(("receiving", "queued")))
        stored = sa.func.coalesce(sa.func.sum(jobs.c.bytes), 0)
        row = connection.execute(sa.select(waiting, stored)).one()
        if self.queued and row[0] >= self.queued:
            raise QueueFullError(
                f"{row[0]} jobs are waiting already, as many as may; try again in "
                f"{QUEUE_RETRY_S} s",
                retry_after_s=QUEUE_RETRY_S,
            )
        if self.stored_bytes and row[1] + announced > self.stored_bytes:
            raise StorageFullError(
                f"The files of all jobs have {row[1]:,} bytes of {self.stored_bytes:,}, "
                f"and {announced:,} more do not fit; clean up jobs that are done"
            )


async def check_free_space(storage: JobStorage, needed_percent: float) -> None:
    """Keeps uploads from filling the disk.

    Raises:
        StorageFullError: less than `needed_percent` of the disk is free.
        StorageUnavailableError: that could not be found out.
    """
    disk = await storage.disk_usage()
    free = 100 * disk.free / disk.size
    if free < needed_percent:
        raise StorageFullError(
            f"Only {free:.1f} % of the disk are free, and {needed_percent} % have to stay so"
        )


def client_network(client: str) -> str:
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
