"""Runs jobs: convert both tracks, ask the model, store the music."""

import asyncio
import random
from contextlib import suppress

import structlog

from orchestrator import ffmpeg
from orchestrator.errors import (
    LeaseLostError,
    MediaError,
    ModelRefusedError,
    ModelUnavailableError,
)
from orchestrator.files import TRACKS, Cache, JobFiles
from orchestrator.jobs import LEASE_S, MAX_ATTEMPTS, Job, JobTable
from orchestrator.torchserve import InferenceClient, ModelWatch

POLL_S = 1.0
RETRY_S = (1.0, 60.0)  # the first wait and the longest; each is twice the one before

log = structlog.get_logger()


class Worker:
    """Takes jobs off the table while the model is ready, several at a time.

    Attributes:
        concurrency: jobs at work at once, so that the model finds others to batch with.
    """

    def __init__(
        self,
        table: JobTable,
        cache: Cache,
        inference: InferenceClient,
        watch: ModelWatch,
        concurrency: int,
    ) -> None:
        self.concurrency = concurrency
        self._table = table
        self._cache = cache
        self._inference = inference
        self._watch = watch
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now: a job was added, or one has ended."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; jobs at work are then handed back."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._take_jobs()
                except Exception:
                    log.exception("no jobs could be taken")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_S)
        finally:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def abandon(self, job_id: str) -> None:
        """Stop work on a job that is about to be deleted."""
        task = self._running.get(job_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _take_jobs(self) -> None:
        while self._watch.status.ready and len(self._running) < self.concurrency:
            job = await self._table.claim()
            if job is None:
                return
            self._running[job.id] = asyncio.create_task(self._work(job))

    async def _work(self, job: Job) -> None:
        """One attempt at one job, whatever comes of it."""
        files = self._cache.job(job.id)
        renewing = asyncio.create_task(self._renew(job))
        logger = log.bind(job_id=job.id, attempt=job.attempt)
        try:
            await self._attempt(job, files)
            logger.info("job completed")
        except LeaseLostError:
            if await self._table.get(job.id) is None:
                files.remove()
            logger.info("job was deleted or taken over")
        except (MediaError, ModelRefusedError) as error:
            logger.info("job failed", code=error.code, reason=str(error))
            await self._fail(job, files, error.code, str(error))
        except asyncio.CancelledError:
            with suppress(LeaseLostError):
                await self._table.hand_back(job)
            raise
        except (ModelUnavailableError, OSError) as error:
            logger.warning("attempt failed", reason=str(error))
            await self._retry(job, files, str(error))
        except Exception:
            logger.exception("attempt failed unexpectedly")
            await self._retry(job, files, "an unexpected error")
        finally:
            renewing.cancel()
            self._running.pop(job.id, None)
            self.wake()

    async def _attempt(self, job: Job, files: JobFiles) -> None:
        if not job.converted:
            await self._table.advance(job, 10, "Converting audio to WAV...")
            await _convert_both(job, files)
            await self._table.mark_converted(job)
        files.replace_uploads(job.extensions)
        await self._table.advance(job, 30, "Extracting audio segments...")
        tracks = [await asyncio.to_thread(files.wav(track).read_bytes) for track in TRACKS]
        await self._table.advance(job, 50, "Generating music...")
        music = await self._inference.generate(*tracks)
        await self._table.advance(job, 95, "Saving output...")
        await asyncio.to_thread(files.write_generated, music, job.attempt)
        await self._table.complete(job)
        files.keep_generated_only()

    async def _fail(self, job: Job, files: JobFiles, code: str, sentence: str) -> None:
        with suppress(LeaseLostError):
            await self._table.fail(job, code, sentence)
        files.remove()

    async def _retry(self, job: Job, files: JobFiles, reason: str) -> None:
        """Try again later what may pass; give up after the last attempt."""
        if job.attempt >= MAX_ATTEMPTS:
            sentence = f"Given up after {job.attempt} attempts; the last one failed: {reason}"
            await self._fail(job, files, "too_many_attempts", sentence)
            return
        first, longest = RETRY_S
        wait = min(longest, first * 2 ** (job.attempt - 1)) * random.uniform(0.5, 1.5)  # noqa: S311
        with suppress(LeaseLostError):
            await self._table.retry(job, wait)

    async def _renew(self, job: Job) -> None:
        with suppress(LeaseLostError):
            while True:
                await asyncio.sleep(LEASE_S / 3)
                await self._table.renew(job)


async def _convert_both(job: Job, files: JobFiles) -> None:
    """Convert both tracks at once; when one fails, the other's ffmpeg is killed.

    Raises:
        MediaError: the first fault, with the name of the track in its sentence.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for track in TRACKS:
                group.create_task(_convert(job, files, track))
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None


async def _convert(job: Job, files: JobFiles, track: int) -> None:
    source = files.upload(track, job.extensions[track - 1])
    try:
        await ffmpeg.convert(source, job.windows[track - 1], files.conversion(track))
    except MediaError as error:
        error.args = (f"track{track}: {error}",)
        raise
