"""One attempt at one job: convert both tracks, request inference, store the music."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from structlog.contextvars import bind_contextvars

from orchestrator.audio import cutting
from orchestrator.errors import (
    InferenceNotStartedError,
    ModelUnavailableError,
    TrackError,
    VersionNotLoadedError,
)
from orchestrator.jobs.job import Job
from orchestrator.jobs.leases import Leases
from orchestrator.observability.metrics import Metrics
from orchestrator.serving.inference import InferenceClient
from orchestrator.serving.watcher import ModelWatcher
from orchestrator.storage.base import JobStorage, part_name, upload_name, window_name
from orchestrator.worker.fleet import Fleet
from orchestrator.worker.resizable_semaphore import ResizableSemaphore

TRACKS = (1, 2)

T = TypeVar("T")
U = TypeVar("U")

log = structlog.get_logger()


@dataclass(frozen=True)
class Dependencies:
    """The components that every attempt uses."""

    leases: Leases
    storage: JobStorage
    inference: InferenceClient
    watcher: ModelWatcher
    fleet: Fleet
    metrics: Metrics


class Attempt:
    """Runs the stages of one attempt.

    Attributes:
        timings: duration of each stage in seconds, including stages of earlier attempts that are
            not repeated.
        model_version: the version that receives the inference request; None until it is chosen.
    """

    def __init__(self, job: Job, dependencies: Dependencies, semaphore: ResizableSemaphore) -> None:
        self.job = job
        self.timings = dict(job.timings)
        self.model_version = job.model_version or job.wanted_version
        self._leases = dependencies.leases
        self._storage = dependencies.storage
        self._inference = dependencies.inference
        self._watcher = dependencies.watcher
        self._fleet = dependencies.fleet
        self._metrics = dependencies.metrics
        self._semaphore = semaphore
        self._began = self._stage_began = time.monotonic()

    async def run(self) -> None:
        """Runs all stages that earlier attempts have not completed."""
        job = self.job
        await self._check_requested_version()
        self.timings["queued"] = round((job.started_at or job.created_at) - job.created_at, 3)
        await self._storage.create(job.id)
        if job.converted:
            names = [window_name(track) for track in TRACKS]
            windows = await _run_both(*(self._storage.read(job.id, name) for name in names))
            music = await self._generate(*windows)
        else:
            await self._leases.advance(job, 10, "Converting audio to WAV...")
            windows = await _run_both(*(self._convert(track) for track in TRACKS))
            self._end_stage("convert")
            persisting = self._persist_windows(sum(map(len, windows)), dict(self.timings))
            music, _ = await _run_both(self._generate(*windows), persisting)
        await self._leases.advance(job, 95, "Saving output...")
        await self._save(music)

    async def _check_requested_version(self) -> None:
        """Checks that this worker can run a job that requested a model version.

        Raises:
            InferenceNotStartedError: another worker has loaded the version, or the local model
                server is not ready.
            VersionNotLoadedError: no worker has loaded the version.
        """
        version, status = self.job.wanted_version, self._watcher.status
        if version is None or status.find(version):
            return
        if not status.ready:
            raise InferenceNotStartedError(status.reason)
        if await self._fleet.has(version):
            raise InferenceNotStartedError(
                f"model version {version} is loaded by other workers only"
            )
        raise VersionNotLoadedError(
            f"Model version {version} is no longer loaded; request another version, or omit it"
        )

    async def _convert(self, track: int) -> bytes:
        """Converts the window of a track; writes it to the workspace and returns it."""
        job, folder = self.job, self._storage.workspace(self.job.id)
        source = await self._storage.fetch(job.id, _upload_name(job, track))
        try:
            window, target = job.windows[track - 1], folder / window_name(track)
            return await cutting.cut_window(source, window, target)
        except TrackError as error:
            error.args = (f"track{track}: {error}",)
            raise

    async def _persist_windows(self, size: int, timings: dict[str, float]) -> None:
        """Stores the converted windows, so that later attempts skip the conversion.

        The uploads are deleted last. If the process dies before that, they can be converted again.
        """
        job = self.job
        await self._storage.persist(job.id, *map(window_name, TRACKS))
        await self._leases.mark_converted(job, size, timings)
        await self._storage.delete(job.id, *(_upload_name(job, track) for track in TRACKS))

    async def _generate(self, track1: bytes, track2: bytes) -> bytes:
        await self._leases.advance(self.job, 30, "Extracting audio segments...")
        if not self._semaphore.free:
            await self._leases.advance(self.job, 40, "Waiting for the model...")
        async with self._semaphore.hold():
            self._end_stage("wait")
            music = await self._request_inference(track1, track2)
            self._end_stage("generate")
        return music

    async def _request_inference(self, track1: bytes, track2: bytes) -> bytes:
        job, status = self.job, self._watcher.status
        version = self.model_version = job.wanted_version or status.version
        loaded = None if version is None else status.find(version)
        if version is None or loaded is None:
            await self._check_requested_version()
            raise InferenceNotStartedError(
                status.reason or f"model version {version} is not loaded"
            )
        bind_contextvars(model_version=version)
        log.info("inference request sent")
        # Do not make the model wait for the database. If the lease is lost, the inference is
        # wasted.
        try:
            music, _ = await _run_both(
                self._infer(version, track1, track2),
                self._leases.begin_generation(job, version, loaded.codec, "Generating music..."),
            )
        except ModelUnavailableError as error:
            if job.wanted_version is None and await self._is_gone(version):
                # Not caused by the job, so it must not count as an attempt.
                raise InferenceNotStartedError(
                    f"model version {version} was unloaded during the request"
                ) from error
            raise
        return music

    async def _infer(self, version: str, track1: bytes, track2: bytes) -> bytes:
        with self._metrics.inference_in_flight.labels(version).track_inprogress():
            return await self._inference.generate(version, track1, track2, self.job.id)

    async def _is_gone(self, version: str) -> bool:
        """Returns whether a version was unregistered, which can happen at any time."""
        for _ in range(2):  # the poll in progress may have started before the failure
            await self._watcher.next_poll()
            status = self._watcher.status
            if status.versions and status.find(version) is None:
                return True
        return False

    async def _save(self, music: bytes) -> None:
        job, part = self.job, part_name(self.job.lease)
        path = self._storage.workspace(job.id) / part
        # On the event loop: it is less than 1 MB, and a thread would continue after cancellation.
        path.write_bytes(music)
        await self._storage.persist(job.id, part)
        self._end_stage("save")
        work_seconds = time.monotonic() - self._began
        await self._leases.complete(job, len(music), self.timings, work_seconds)

    def _end_stage(self, name: str) -> None:
        now = time.monotonic()
        self.timings[name] = round(now - self._stage_began, 3)
        self._stage_began = now


def _upload_name(job: Job, track: int) -> str:
    return upload_name(track, job.extensions[track - 1])


async def _run_both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Runs two coroutines concurrently; if one fails, the other is cancelled.

    Raises:
        Exception: the exception of the one that failed first.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()
