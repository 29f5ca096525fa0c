"""Counts jobs by state and by model version."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs
from orchestrator.jobs.table import SHORT_RETRY_TIMEOUT_S


@dataclass(frozen=True)
class JobCounts:
    """Statistics of the job table.

    Attributes:
        by_state: number of jobs in each state.
        stored_bytes: total size of all jobs' files.
        oldest_queued_s: seconds since the oldest queued job was accepted; 0 when none is queued.
        pinned: number of queued and running jobs by the model version that they requested.
    """

    by_state: Mapping[str, int]
    stored_bytes: int
    oldest_queued_s: float
    pinned: Mapping[str, int]


async def count_jobs(database: Database) -> JobCounts:
    """Counts all jobs.

    Raises:
        DatabaseUnavailableError: the database is unreachable.
    """
    return await database.read(_count, SHORT_RETRY_TIMEOUT_S)


async def count_pinned(database: Database) -> Mapping[str, int]:
    """Returns only `JobCounts.pinned`.

    Raises:
        DatabaseUnavailableError: the database is unreachable.
    """
    return await database.read(_count_pinned, SHORT_RETRY_TIMEOUT_S)


def _count(connection: sa.Connection) -> JobCounts:
    by_state = connection.execute(
        sa.select(
            jobs.c.state,
            sa.func.count().label("number"),
            sa.func.coalesce(sa.func.sum(jobs.c.bytes), 0).label("bytes"),
            (NOW - sa.func.min(jobs.c.created_at)).label("age"),
        ).group_by(jobs.c.state)
    ).all()
    return JobCounts(
        by_state={row.state: row.number for row in by_state},
        stored_bytes=sum(row.bytes for row in by_state),
        oldest_queued_s=next((row.age for row in by_state if row.state == "queued"), 0.0),
        pinned=_count_pinned(connection),
    )


def _count_pinned(connection: sa.Connection) -> dict[str, int]:
    rows = connection.execute(
        sa.select(jobs.c.wanted_version, sa.func.count().label("number"))
        .where(jobs.c.state.in_(("queued", "running")), jobs.c.wanted_version.is_not(None))
        .group_by(jobs.c.wanted_version)
    )
    return {row.wanted_version: row.number for row in rows}
