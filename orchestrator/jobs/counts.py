"""How many jobs there are, by state and by version."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs
from orchestrator.jobs.table import READ_PATIENCE_S


@dataclass(frozen=True)
class JobCounts:
    """What the table holds.

    Attributes:
        by_state: number of jobs.
        stored_bytes: of all jobs' files.
        oldest_queued_s: since the job was accepted that is queued and older than all others; 0 when
            none is queued.
        pinned: number of queued and running jobs by the version they asked for by name.
    """

    by_state: Mapping[str, int]
    stored_bytes: int
    oldest_queued_s: float
    pinned: Mapping[str, int]


async def count_jobs(database: Database) -> JobCounts:
    """Counts all jobs.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    return await database.read(_count, READ_PATIENCE_S)


async def count_pinned(database: Database) -> Mapping[str, int]:
    """The same as JobCounts.pinned alone.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    return await database.read(_count_pinned, READ_PATIENCE_S)


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
