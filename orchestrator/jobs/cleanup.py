"""Deletes expired jobs, orphaned files, and the leftovers of dead processes.

Files of jobs without a row in the database are quarantined: the rows may have been lost by mistake,
for example when an older backup of the database was restored. The files are restored if the rows
reappear.
"""

import time
from functools import partial

import sqlalchemy as sa
import structlog

from orchestrator.concurrency import run_periodically
from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs, submissions
from orchestrator.errors import MusicLabError
from orchestrator.jobs.job import FINAL
from orchestrator.jobs.results import finalize_result
from orchestrator.jobs.table import LEASE_S, delete_jobs
from orchestrator.storage.base import JobStorage

INTERVAL_S = 3600.0
QUARANTINE_S = 24 * 3600.0
BATCH_SIZE = 500  # jobs per query, to keep each query short

log = structlog.get_logger()


class Cleanup:
    """Runs the cleanup at startup, every hour, and after a process has died.

    Args:
        retention_s: seconds for which a finished job is kept.
    """

    def __init__(self, database: Database, storage: JobStorage, retention_s: float) -> None:
        self._database = database
        self._storage = storage
        self._retention_s = retention_s
        self._due = 0.0
        self._suspects: set[str] = set()

    def run_soon(self) -> None:
        """Schedules a run within LEASE_S seconds, for example after a worker has died."""
        self._due = 0.0

    async def run(self) -> None:
        """Runs the cleanup whenever it is due, until cancelled."""
        await run_periodically(self._run_if_due, LEASE_S, "cleanup failed")

    async def _run_if_due(self) -> None:
        try:
            if await self.remove_abandoned_uploads():
                self.run_soon()
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + INTERVAL_S
            await self.run_once()
        except (MusicLabError, OSError):
            self.run_soon()
            raise

    async def run_once(self) -> None:
        """Deletes expired jobs and unneeded files of finished jobs; quarantines orphaned files.

        Raises:
            SettingsError: the files belong to another database.
        """
        # Repeated here because the storage may have been unreachable at startup.
        await self._storage.claim(self._database.id)
        await self._remove_expired()
        await self._remove_expired_submissions()
        # List the files before the rows. A row is created before its files, so if a listed job has
        # no row afterwards, the row was deleted or lost.
        found = await self._storage.job_ids()
        states = await self._states(sorted(found))
        await self._quarantine_orphans(found - states.keys())
        for job_id, (state, lease) in states.items():
            if state == "completed":
                await finalize_result(self._storage, job_id, lease)
                await self._storage.release_workspace(job_id)
            elif state == "failed":
                await self._storage.remove(job_id)
        await self._check_quarantine()

    async def _quarantine_orphans(self, job_ids: set[str]) -> None:
        """Quarantines the files of jobs that had no row in the previous run either.

        One run is not enough evidence: deleting a job removes its row before its files.
        """
        for job_id in job_ids & self._suspects:
            await self._storage.quarantine(job_id)
            log.warning("files of unknown job quarantined", job_id=job_id)
        self._suspects = job_ids - self._suspects
        if self._suspects:
            self.run_soon()

    async def _check_quarantine(self) -> None:
        since = await self._storage.quarantined()
        states = await self._states(sorted(since))
        for job_id, then in since.items():
            if job_id in states:
                await self._storage.restore(job_id)
                log.warning("files restored from quarantine", job_id=job_id)
            elif then < time.time() - QUARANTINE_S:
                await self._storage.discard(job_id)
                log.info("quarantined files deleted", job_id=job_id)

    async def _remove_expired(self) -> None:
        old = sa.select(jobs.c.id).where(
            jobs.c.state.in_(FINAL), jobs.c.finished_at < NOW - self._retention_s
        )
        await self._remove(old)

    async def remove_abandoned_uploads(self) -> bool:
        """Deletes uploads whose process died or stalled; returns whether there were any."""
        abandoned = sa.select(jobs.c.id).where(
            jobs.c.state == "receiving", jobs.c.lease_until < NOW
        )
        return await self._remove(abandoned) > 0

    async def _remove(self, which: sa.Select[tuple[str]]) -> int:
        def work(connection: sa.Connection) -> list[str]:
            rows = connection.execute(which.with_for_update())
            chosen = [row.id for row in rows]
            return delete_jobs(connection, chosen)

        removed = await self._database.write(work)
        for job_id in removed:
            await self._storage.remove(job_id)
        return len(removed)

    async def _remove_expired_submissions(self) -> None:
        expired = sa.delete(submissions).where(
            submissions.c.forget_at < NOW, submissions.c.job_id.not_in(sa.select(jobs.c.id))
        )

        def work(connection: sa.Connection) -> None:
            connection.execute(expired)

        await self._database.write(work)

    async def _states(self, job_ids: list[str]) -> dict[str, tuple[str, int]]:
        states: dict[str, tuple[str, int]] = {}
        for start in range(0, len(job_ids), BATCH_SIZE):
            some = jobs.c.id.in_(job_ids[start : start + BATCH_SIZE])
            states |= await self._database.read(partial(_states_of, some))
        return states


def _states_of(
    which: sa.ColumnElement[bool], connection: sa.Connection
) -> dict[str, tuple[str, int]]:
    rows = connection.execute(sa.select(jobs.c.id, jobs.c.state, jobs.c.lease).where(which))
    return {row.id: (row.state, row.lease) for row in rows}
