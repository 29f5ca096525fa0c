"""Leases on jobs: claims, renewals, and updates by the worker that holds the lease.

A lease lasts LEASE_S seconds and is renewed while the job runs. When the lease of a dead worker
expires, another worker takes the job over. Every write checks the owner and the lease number, so a
worker whose lease has expired cannot overwrite the work of its successor.
"""

import uuid
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from orchestrator.concurrency import run_periodically
from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs, submissions
from orchestrator.errors import LeaseLostError
from orchestrator.jobs.job import COMPLETED, Job
from orchestrator.jobs.table import JOB_COLUMNS, LEASE_S, job_from_row, record_event

# Seconds for which a job that requested a model version is reserved for workers that have loaded
# it. After that any worker may claim the job, to check whether the version is loaded anywhere.
PINNED_WAIT_S = 30.0


class Leases:
    """The leases of this process, on running jobs and on incoming uploads.

    Attributes:
        owner: unique identifier of this process.
    """

    def __init__(self, database: Database) -> None:
        self.owner = uuid.uuid4().hex
        self._database = database
        self._held: set[str] = set()

    async def expire_previous(self) -> None:
        """Expires all leases of earlier processes, if the database is not shared."""
        if self._database.is_shared:
            return

        def work(connection: sa.Connection) -> None:
            held = jobs.c.state.in_(("running", "receiving"))
            connection.execute(sa.update(jobs).where(held).values(lease_until=0))

        await self._database.write(work)

    def hold(self, job_id: str) -> None:
        """Starts renewing the job's lease."""
        self._held.add(job_id)

    def release(self, job_id: str) -> None:
        """Stops renewing the job's lease."""
        self._held.discard(job_id)

    async def run_renewals(self) -> None:
        """Renews the held leases until cancelled."""
        await run_periodically(self.renew, LEASE_S / 3, "lease renewal failed")

    async def renew(self) -> None:
        """Extends the held leases. A lost lease is not regained."""
        if not self._held:
            return
        ours = sa.and_(jobs.c.id.in_(self._held), jobs.c.owner == self.owner)

        def work(connection: sa.Connection) -> None:
            renewed = sa.update(jobs).where(ours).values(lease_until=NOW + LEASE_S)
            connection.execute(renewed)

        await self._database.write(work)

    async def still_held(self, job_ids: list[str]) -> set[str]:
        """Returns the jobs that were neither deleted nor taken over since they were claimed."""
        ours = sa.select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.owner == self.owner)

        def work(connection: sa.Connection) -> set[str]:
            return set(connection.execute(ours).scalars())

        return await self._database.read(work)

    async def claim(self, loaded: Collection[str] = ()) -> Job | None:
        """Claims and returns the oldest job that is queued or whose lease has expired, if any.

        Args:
            loaded: model versions available to this process. Jobs that requested another version
                are left to other workers for PINNED_WAIT_S seconds.
        """
        due = sa.case((jobs.c.state == "queued", jobs.c.run_at), else_=jobs.c.lease_until)
        free = sa.and_(jobs.c.state.in_(("queued", "running")), due <= NOW)
        suitable = sa.or_(
            jobs.c.wanted_version.is_(None),
            jobs.c.wanted_version.in_(loaded),
            due <= NOW - PINNED_WAIT_S,
        )
        next_id = (
            sa.select(jobs.c.id)
            # A process that stalled past the end of its leases must not claim its own jobs again.
            .where(free, suitable, jobs.c.id.not_in(self._held))
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        take = (
            sa.update(jobs)
            .where(jobs.c.id == next_id)
            .values(
                state="running",
                revision=jobs.c.revision + 1,
                owner=self.owner,
                lease=jobs.c.lease + 1,
                deaths=jobs.c.deaths + sa.case((jobs.c.state == "running", 1), else_=0),
                lease_until=NOW + LEASE_S,
                started_at=sa.func.coalesce(jobs.c.started_at, NOW),
            )
            .returning(*JOB_COLUMNS)
        )

        def work(connection: sa.Connection) -> Job | None:
            row = connection.execute(take).mappings().first()
            if row is None:
                return None
            job = job_from_row(row)
            record_event(connection, job)
            return job

        job = await self._database.write(work)
        if job is not None:
            self.hold(job.id)
        return job

    async def advance(self, job: Job, progress: int, message: str) -> None:
        """Reports a stage of the job; progress never decreases.

        Raises:
            LeaseLostError: the job was deleted or taken over. The methods below raise it too.
        """
        await self._write(job, progress=_at_least(progress), message=message)

    async def mark_converted(self, job: Job, size: int, timings: dict[str, float]) -> None:
        """Records that both tracks are converted; `size` is their total size in bytes."""
        await self._write(job, converted=True, bytes=size, timings=timings)

    async def begin_generation(
        self, job: Job, version: str, codec: str | None, message: str
    ) -> None:
        """Records the model version before the inference request."""
        await self._write(
            job,
            progress=_at_least(50),
            message=message,
            model_version=version,
            codec=codec,
        )

    async def complete(
        self, job: Job, size: int, timings: dict[str, float], work_seconds: float
    ) -> None:
        """Completes the job with the result of this lease, of `size` bytes."""
        await self._write(
            job,
            work_seconds,
            state="completed",
            progress=100,
            message=COMPLETED,
            finished_at=NOW,
            bytes=size,
            timings=timings,
            attempts=job.attempts + 1,
        )

    async def fail(self, job: Job, code: str, message: str, attempts: int) -> None:
        """Marks the job as failed permanently."""
        await self._write(
            job,
            state="failed",
            error_code=code,
            message=message,
            finished_at=NOW,
            bytes=0,
            attempts=attempts,
        )

    async def retry(self, job: Job, after_s: float, message: str, attempts: int) -> None:
        """Returns the job to the queue, to be claimed after `after_s` seconds at the earliest."""
        await self._write(
            job, state="queued", run_at=NOW + after_s, message=message, attempts=attempts
        )

    async def _write(self, job: Job, work_seconds: float | None = None, **values: Any) -> None:
        """Updates the job as the holder of the lease, and renews the lease."""
        ours = sa.and_(jobs.c.id == job.id, jobs.c.owner == self.owner, jobs.c.lease == job.lease)
        change = (
            sa.update(jobs)
            .where(ours, jobs.c.state == "running")
            .values(values | {"lease_until": NOW + LEASE_S, "revision": jobs.c.revision + 1})
            .returning(*JOB_COLUMNS)
        )

        def work(connection: sa.Connection) -> bool:
            row = connection.execute(change).mappings().first()
            if row is None:
                # This may be a retry after the reply to a successful commit was lost. Then the row
                # already has the new state.
                written = sa.select(jobs.c.id).where(ours, jobs.c.state == values.get("state"))
                return connection.execute(written).first() is not None
            record_event(connection, job_from_row(row))
            if work_seconds is not None:
                submission = sa.update(submissions).where(submissions.c.job_id == job.id)
                connection.execute(submission.values(work_seconds=work_seconds))
            return True

        if not await self._database.write(work):
            raise LeaseLostError(f"job {job.id} was deleted or taken over")


def _at_least(progress: int) -> sa.ColumnElement[int]:
    return sa.case((jobs.c.progress > progress, jobs.c.progress), else_=progress)
