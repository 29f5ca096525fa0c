"""Claims jobs and handles the outcome of every attempt."""

import asyncio
import random
from contextlib import suppress

import structlog
from structlog.contextvars import bind_contextvars

from orchestrator.concurrency import background_tasks, run_periodically
from orchestrator.errors import (
    AttemptError,
    DatabaseUnavailableError,
    LeaseLostError,
    StorageUnavailableError,
    TooManyDeathsError,
    UnexpectedError,
)
from orchestrator.jobs.cleanup import Cleanup
from orchestrator.jobs.job import Job
from orchestrator.jobs.results import finalize_result
from orchestrator.jobs.table import JobTable
from orchestrator.observability.metrics import NO_VERSION
from orchestrator.storage.base import part_name
from orchestrator.worker.attempt import Attempt, Dependencies
from orchestrator.worker.resizable_semaphore import ResizableSemaphore

MAX_ATTEMPTS = 5
# Processes and machines usually fail for reasons unrelated to the job, but a job may be the cause.
MAX_DEATHS = 20
# The windows of the next batch are converted while the model processes the current one.
JOBS_PER_SLOT = 2
POLL_S = 1.0
HELD_CHECK_S = 0.5  # interval between checks for running jobs that were deleted or taken over
RETRY_S = (1.0, 60.0)  # the first delay, doubled for each attempt, and its upper limit

log = structlog.get_logger()


class Worker:
    """Claims and runs jobs concurrently while the model is ready.

    The model receives no more requests than fit in one batch per TorchServe worker. Further jobs
    wait in this process, where a deleted job can still be withdrawn.
    """

    def __init__(self, table: JobTable, cleanup: Cleanup, dependencies: Dependencies) -> None:
        self._table = table
        self._cleanup = cleanup
        self._dependencies = dependencies
        self._leases = dependencies.leases
        self._storage = dependencies.storage
        self._watcher = dependencies.watcher
        self._metrics = dependencies.metrics
        self._semaphore = ResizableSemaphore(dependencies.watcher.status.capacity)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._finishing = False

    def wake(self) -> None:
        """Makes the worker claim jobs immediately, for example after a job was added."""
        self._wake.set()

    async def run(self) -> None:
        """Claims and runs jobs until `finish` is called."""
        checks = run_periodically(self._check_held, HELD_CHECK_S, "lease check failed")
        async with background_tasks(checks, self._follow_model()):
            while not self._finishing:
                self._wake.clear()
                try:
                    await self._claim_jobs()
                except DatabaseUnavailableError as error:
                    log.warning("jobs could not be claimed", reason=str(error))
                except Exception:
                    log.exception("jobs could not be claimed")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_S)

    async def finish(self, grace_s: float) -> None:
        """Stops claiming jobs and returns those not finished within `grace_s` to the queue."""
        self._finishing = True
        self.wake()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace_s)
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def abandon(self, job_id: str) -> None:
        """Stops running a job whose row was deleted, so that its files can be deleted."""
        task = self._running.get(job_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _claim_jobs(self) -> None:
        while (
            self._watcher.status.ready
            and len(self._running) < JOBS_PER_SLOT * self._watcher.status.capacity
            and not self._finishing
        ):
            job = await self._leases.claim(self._watcher.status.names)
            if job is None:
                return
            if self._finishing:  # set during the claim
                self._leases.release(job.id)
                await self._return_to_queue(job)
                return
            if job.deaths:  # dead processes may have left files
                self._cleanup.run_soon()
            self._running[job.id] = asyncio.create_task(self._work(job))
            self._metrics.running_jobs.set(len(self._running))

    async def _check_held(self) -> None:
        """Stops running jobs that were deleted on another host, or taken over."""
        before = list(self._running)
        if not before:
            return
        held = await self._leases.still_held(before)
        for job_id in set(before) - held:
            task = self._running.get(job_id)
            if task is not None:
                task.cancel()

    async def _follow_model(self) -> None:
        """Keeps the number of slots equal to the capacity of the model."""
        while True:
            self._semaphore.resize(self._watcher.status.capacity)
            await self._watcher.next_poll()

    async def _work(self, job: Job) -> None:
        """Runs one attempt at one job and handles its outcome."""
        bind_contextvars(job_id=job.id, lease=job.lease, model_version=job.wanted_version)
        log.info("job claimed", attempts=job.attempts)
        try:
            try:
                await self._run_attempt(job)
            finally:
                # A worker that continues the job, possibly on another host, reads the stored files.
                await self._storage.release_workspace(job.id)
        except (DatabaseUnavailableError, StorageUnavailableError) as error:
            # Another worker takes the job over when its lease has expired. Cleanup deletes the
            # remaining files.
            log.warning("job abandoned until its lease expires", reason=str(error))
        finally:
            self._leases.release(job.id)
            self._running.pop(job.id, None)
            self._metrics.running_jobs.set(len(self._running))
            self.wake()

    async def _run_attempt(self, job: Job) -> None:
        attempt = Attempt(job, self._dependencies, self._semaphore)
        try:
            if job.deaths > MAX_DEATHS:
                message = f"Given up: {job.deaths} processes died while they ran it"
                raise TooManyDeathsError(message)
            try:
                await attempt.run()
            finally:
                bind_contextvars(model_version=attempt.model_version)
        except LeaseLostError:
            log.info("job was deleted or taken over")
            await self._discard_leftovers(job)
        except asyncio.CancelledError:
            await self._return_to_queue(job)
            raise
        except DatabaseUnavailableError:
            raise
        except Exception as error:
            await self._fail_or_retry(attempt, _as_attempt_error(error))
        else:
            self._count(attempt, "completed", job.attempts + 1)
            log.info("job completed", **attempt.timings)
            await finalize_result(self._storage, job.id, job.lease)

    async def _fail_or_retry(self, attempt: Attempt, error: AttemptError) -> None:
        """Fails the job or returns it to the queue, depending on the error."""
        attempts = attempt.job.attempts + error.counts_as_attempt
        if not error.retryable:
            log.info("job failed", code=error.code, reason=str(error))
            await self._fail(attempt, error.code, error.user_message, attempts)
            return
        if isinstance(error, UnexpectedError):
            log.error("attempt failed unexpectedly", exc_info=error.__cause__)
        elif error.counts_as_attempt:
            log.warning("attempt failed", reason=str(error))
        else:
            log.info("inference not started", reason=str(error))
        self._metrics.failed_attempts.labels(error.reason).inc()
        if attempts < MAX_ATTEMPTS:
            await self._retry(attempt, error.user_message, attempts)
            return
        message = f"Given up after {attempts} attempts; the last one failed: {error.user_message}"
        await self._fail(attempt, error.code, message, attempts)

    async def _return_to_queue(self, job: Job) -> None:
        """Returns the job to the queue without counting an attempt, if the lease is still held."""
        try:
            await self._leases.retry(job, 0, "Waiting in the queue", job.attempts)
        except LeaseLostError:
            await self._discard_leftovers(job)

    async def _discard_leftovers(self, job: Job) -> None:
        """Deletes the files of this attempt after the job was deleted or taken over."""
        present = await self._table.get(job.id)
        if present is None:
            await self._storage.remove(job.id)
        elif present.lease != job.lease:
            await self._storage.delete(job.id, part_name(job.lease))
            # This attempt may have stored a window after the other one stored its result.
            self._cleanup.run_soon()

    async def _fail(self, attempt: Attempt, code: str, message: str, attempts: int) -> None:
        try:
            await self._leases.fail(attempt.job, code, message, attempts)
        except LeaseLostError:
            await self._discard_leftovers(attempt.job)
            return
        self._count(attempt, code, attempts)
        await self._storage.remove(attempt.job.id)

    async def _retry(self, attempt: Attempt, reason: str, attempts: int) -> None:
        """Returns the job to the queue with an exponentially growing delay."""
        first, longest = RETRY_S
        wait = min(longest, first * 2 ** max(0, attempts - 1)) * random.uniform(0.5, 1.5)  # noqa: S311
        try:
            message = f"Waiting for another try: {reason}"
            await self._leases.retry(attempt.job, wait, message, attempts)
        except LeaseLostError:
            await self._discard_leftovers(attempt.job)

    def _count(self, attempt: Attempt, outcome: str, attempts: int) -> None:
        self._metrics.finished.labels(outcome, attempt.model_version or NO_VERSION).inc()
        self._metrics.attempts.observe(attempts)
        for stage, seconds in attempt.timings.items():
            self._metrics.stage_seconds.labels(stage).observe(seconds)


def _as_attempt_error(error: Exception) -> AttemptError:
    if isinstance(error, AttemptError):
        return error
    kind = StorageUnavailableError if isinstance(error, OSError) else UnexpectedError
    wrapped = kind(str(error))
    wrapped.__cause__ = error
    return wrapped
