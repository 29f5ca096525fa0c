"""Leases on jobs: how a worker takes one, keeps it, writes it, and gives it away.

A lease lasts some seconds and is renewed while the work goes on; a dead worker's job is taken over
when it ends. Every write names the owner and the number of the lease, so that a worker whose lease
ended cannot touch the work of the next one.
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

# A job that asked for a version of the model by name waits so long for somebody who has it; then
# anybody takes it, and finds out whether there is one.
STRANDED_S = 30.0


class Leases:
    """What this process holds: jobs at work, and uploads that come in.

    Attributes:
        owner: the name of this process.
    """

    def __init__(self, database: Database) -> None:
        self.owner = uuid.uuid4().hex
        self._database = database
        self._held: set[str] = set()

    async def expire_previous(self) -> None:
        """On a database that nobody shares, end what a dead process held."""
        if self._database.is_shared:
            return

        def work(connection: sa.Connection) -> None:
            held = jobs.c.state.in_(("running", "receiving"))
            connection.execute(sa.update(jobs).where(held).values(lease_until=0))

        await self._database.write(work)

    def hold(self, job_id: str) -> None:
        """Renew this job's lease from now on."""
        self._held.add(job_id)

    def release(self, job_id: str) -> None:
        self._held.discard(job_id)

    async def run_renewals(self) -> None:
        """Renew until cancelled."""
        await run_periodically(self.renew, LEASE_S / 3, "leases were not renewed")

    async def renew(self) -> None:
        """Prolong what is held. A lease that was lost is not brought back."""
        if not self._held:
            return
        ours = sa.and_(jobs.c.id.in_(self._held), jobs.c.owner == self.owner)

        def work(connection: sa.Connection) -> None:
            renewed = sa.update(jobs).where(ours).values(lease_until=NOW + LEASE_S)
            connection.execute(renewed)

        await self._database.write(work)

    async def still_held(self, job_ids: list[str]) -> set[str]:
        """Which of these jobs nobody has deleted or taken over since this process took them."""
        ours = sa.select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.owner == self.owner)

        def work(connection: sa.Connection) -> set[str]:
            return set(connection.execute(ours).scalars())

        return await self._database.read(work)

    async def claim(self, loaded: Collection[str] = ()) -> Job | None:
        """Take the job that has waited longest, or one whose lease ended; None if there is none.

        Args:
            loaded: versions of the model that this process can ask. One that was asked for by name
                and is not among them is left to others for a while.
        """
        due = sa.case((jobs.c.state == "queued", jobs.c.run_at), else_=jobs.c.lease_until)
        free = sa.and_(jobs.c.state.in_(("queued", "running")), due <= NOW)
        suitable = sa.or_(
            jobs.c.wanted_version.is_(None),
            jobs.c.wanted_version.in_(loaded),
            due <= NOW - STRANDED_S,
        )
        next_id = (
            sa.select(jobs.c.id)
            # One that slept through its lease does not take its own work a second time.
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
        """Show a step of the work; progress never goes back. Raises LeaseLostError, as all do."""
        await self._write(job, progress=_at_least(progress), message=message)

    async def mark_converted(self, job: Job, size: int, timings: dict[str, float]) -> None:
        """Both tracks are WAV files now, of `size` bytes together."""
        await self._write(job, converted=True, bytes=size, timings=timings)

    async def begin_generation(
        self, job: Job, version: str, codec: str | None, message: str
    ) -> None:
        """The model is about to be asked."""
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
        """The music of this lease, of `size` bytes, is the job's result from now on."""
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

    async def fail(self, job: Job, code: str, sentence: str, attempts: int) -> None:
        """The job has failed for good, after so many attempts."""
        await self._write(
            job,
            state="failed",
            error_code=code,
            message=sentence,
            finished_at=NOW,
            bytes=0,
            attempts=attempts,
        )

    async def retry(self, job: Job, after_s: float, message: str, attempts: int) -> None:
        """Put the job back in the queue, for `after_s` seconds from now, with so many attempts."""
        await self._write(
            job, state="queued", run_at=NOW + after_s, message=message, attempts=attempts
        )

    async def _write(self, job: Job, work_seconds: float | None = None, **values: Any) -> None:
        """Write as the holder of the lease, and renew it."""
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
                # When a commit's answer was lost and this is repeated, our own write is there.
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
