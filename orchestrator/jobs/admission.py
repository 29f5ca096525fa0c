"""Admission limits: requests per client, waiting jobs and stored bytes.

Usage is counted in the database, so the limits apply across all hosts that serve the API.
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
    """Upper limits; 0 means unlimited.

    Attributes:
        per_minute: requests from one client within a minute.
        queued: jobs that are waiting or being uploaded.
        stored_bytes: total size of all jobs' files.
    """

    per_minute: int
    queued: int
    stored_bytes: int

    def check_rate(self, connection: sa.Connection, client: str) -> None:
        """Raises RateLimitError if the client has reached its limit of requests per minute."""
        if not self.per_minute:
            return
        # The oldest of the last `per_minute` requests. The next request is allowed once this one
        # is a minute old.
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
                f"Generate and check requests are limited to {self.per_minute} per minute from "
                f"{client}; try again in {seconds} s",
                retry_after_s=seconds,
            )

    def check_room(self, connection: sa.Connection, expected_bytes: int) -> None:
        """Checks that the queue and the storage have room for another job.

        Args:
            connection: the database connection.
            expected_bytes: size of the upload according to its Content-Length; 0 if unknown.

        Raises:
            QueueFullError, StorageFullError: a limit is reached.
        """
        waiting = sa.func.count().filter(jobs.c.state.in_(("receiving", "queued")))
        stored = sa.func.coalesce(sa.func.sum(jobs.c.bytes), 0)
        row = connection.execute(sa.select(waiting, stored)).one()
        if self.queued and row[0] >= self.queued:
            raise QueueFullError(
                f"The queue is full: {row[0]} jobs are waiting; try again in {QUEUE_RETRY_S} s",
                retry_after_s=QUEUE_RETRY_S,
            )
        if self.stored_bytes and row[1] + expected_bytes > self.stored_bytes:
            raise StorageFullError(
                f"The files of all jobs use {row[1]:,} of {self.stored_bytes:,} bytes, and "
                f"{expected_bytes:,} more do not fit; delete finished jobs"
            )


async def check_free_space(storage: JobStorage, needed_percent: float) -> None:
    """Prevents uploads from filling the disk.

    Raises:
        StorageFullError: less than `needed_percent` of the disk is free.
        StorageUnavailableError: the free space could not be determined.
    """
    disk = await storage.disk_usage()
    free = 100 * disk.free / disk.size
    if free < needed_percent:
        raise StorageFullError(
            f"Only {free:.1f}% of the disk is free; at least {needed_percent}% must stay free"
        )


def client_network(client: str) -> str:
    """Returns the network that identifies a client: an IPv4 address or an IPv6 /64 network.

    An IPv6 host can use any of the 2**64 addresses in its network.
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
