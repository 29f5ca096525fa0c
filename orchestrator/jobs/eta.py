"""Estimates how long a job will take, based on recently completed jobs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import jobs, submissions
from orchestrator.jobs.job import Job
from orchestrator.jobs.table import SHORT_RETRY_TIMEOUT_S

SAMPLE_SIZE = 20
VALID_S = 1.0


@dataclass(frozen=True)
class _Statistics:
    """Recent throughput.

    Attributes:
        seconds: median duration of recent jobs; None before the first job is completed.
        running: number of running jobs.
    """

    seconds: float | None
    running: int


class EtaEstimator:
    """Estimates when jobs will be completed. Queries the database at most once a second.

    Args:
        is_model_ready: returns whether a model is available to run waiting jobs.
    """

    def __init__(self, database: Database, is_model_ready: Callable[[], bool]) -> None:
        self._database = database
        self._is_model_ready = is_model_ready
        self._statistics = _Statistics(None, 0)
        self._valid_until = 0.0

    async def seconds_left(self, job: Job, queue_position: int | None) -> float | None:
        """Returns the seconds until the job is completed.

        Returns None for a finished job and when no estimate is possible: no model is ready, no job
        has been completed yet, or the job has been started before and is back in the queue.
        """
        if job.state not in ("queued", "running"):
            return None
        if job.state == "queued" and (job.started_at is not None or not self._is_model_ready()):
            return None
        recent = await self._current_statistics()
        if recent.seconds is None:
            return None
        if job.state == "running":
            worked = job.read_at - (job.started_at or job.read_at)
            return round(max(1.0, recent.seconds - worked), 1)
        # Little's law: during the time that one job takes, `running` jobs are completed.
        ahead = (queue_position or 1) - 1
        wait = ahead * recent.seconds / max(1, recent.running)
        return round(wait + recent.seconds, 1)

    async def _current_statistics(self) -> _Statistics:
        if time.monotonic() >= self._valid_until:
            self._valid_until = time.monotonic() + VALID_S
            self._statistics = await self._database.read(_read_statistics, SHORT_RETRY_TIMEOUT_S)
        return self._statistics


def _read_statistics(connection: sa.Connection) -> _Statistics:
    recent = (
        sa.select(submissions.c.work_seconds)
        .where(submissions.c.work_seconds.is_not(None))
        .order_by(submissions.c.at.desc())
        .limit(SAMPLE_SIZE)
    )
    running = sa.select(sa.func.count()).where(jobs.c.state == "running")
    seconds = list(connection.execute(recent).scalars())
    count = int(connection.execute(running).scalar_one())
    return _Statistics(statistics.median(seconds) if seconds else None, count)
