"""How long a job will take, learned from those that were done lately."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import jobs, submissions
from orchestrator.jobs.job import Job
from orchestrator.jobs.table import READ_PATIENCE_S

LEARNED_FROM = 20
VALID_S = 1.0


@dataclass(frozen=True)
class _Learned:
    """Median seconds of work a job, and how many are at work now."""

    seconds: float | None
    running: int


class EtaEstimator:
    """Estimates when jobs will be completed; asks the database once a second at most.

    Args:
        is_model_ready: whether jobs that wait will be taken soon.
    """

    def __init__(self, database: Database, is_model_ready: Callable[[], bool]) -> None:
        self._database = database
        self._is_model_ready = is_model_ready
        self._learned = _Learned(None, 0)
        self._valid_until = 0.0

    async def seconds_left(self, job: Job, queue_position: int | None) -> float | None:
        """Until the job is completed; None when nobody can know, or there is nothing to wait for.

        Of a job that was put back in the queue it is not known when what failed will be over.
        """
        if job.state not in ("queued", "running"):
            return None
        if job.state == "queued" and (job.started_at is not None or not self._is_model_ready()):
            return None
        learned = await self._now()
        if learned.seconds is None:
            return None
        if job.state == "running":
            worked = job.read_at - (job.started_at or job.read_at)
            return round(max(1.0, learned.seconds - worked), 1)
        # Little's law: as many jobs as are at work are completed in the time that one takes.
        ahead = (queue_position or 1) - 1
        wait = ahead * learned.seconds / max(1, learned.running)
        return round(wait + learned.seconds, 1)

    async def _now(self) -> _Learned:
        if time.monotonic() >= self._valid_until:
            self._valid_until = time.monotonic() + VALID_S
            self._learned = await self._database.read(_learn, READ_PATIENCE_S)
        return self._learned


def _learn(connection: sa.Connection) -> _Learned:
    recent = (
        sa.select(submissions.c.work_seconds)
        .where(submissions.c.work_seconds.is_not(None))
        .order_by(submissions.c.at.desc())
        .limit(LEARNED_FROM)
    )
    running = sa.select(sa.func.count()).where(jobs.c.state == "running")
    seconds = list(connection.execute(recent).scalars())
    count = int(connection.execute(running).scalar_one())
    return _Learned(statistics.median(seconds) if seconds else None, count)
