"""Creates jobs from uploads, exactly once per idempotency key."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from structlog.contextvars import bind_contextvars

from orchestrator.audio.validation import check_audio
from orchestrator.database.engine import Database
from orchestrator.errors import (
    DatabaseUnavailableError,
    IdempotencyKeyReusedError,
    InputError,
    StorageUnavailableError,
)
from orchestrator.jobs.admission import check_free_space
from orchestrator.jobs.job import Job, Upload
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.results import finalize_result
from orchestrator.jobs.submission_table import Submission, SubmissionTable
from orchestrator.jobs.table import JobTable
from orchestrator.observability.metrics import Metrics
from orchestrator.storage.base import GENERATED, JobStorage


class LoadedVersions(Protocol):
    """The currently loaded model versions."""

    @property
    def version(self) -> str | None:
        """The default version, if it is ready."""

    @property
    def names(self) -> tuple[str, ...]:
        """All loaded versions."""


@dataclass(frozen=True)
class Received:
    """A complete upload.

    Attributes:
        tracks: names of the files in the job's workspace, by form field.
        digest: hash of the form's content; equal for repeated requests.
    """

    upload: Upload
    tracks: Mapping[str, str]
    digest: str


@dataclass(frozen=True)
class Accepted:
    """A new job."""

    job_id: str


@dataclass(frozen=True)
class Replayed:
    """The job created by an earlier request with the same idempotency key."""

    job_id: str


@dataclass(frozen=True)
class Reservation:
    """A reserved position in the queue for one upload.

    Attributes:
        job_id: ID of the job that the upload may become.
        folder: the directory to write the tracks to.
        key: the idempotency key, if one was sent.
        earlier: the request that was already accepted with this key, if any.
    """

    job_id: str
    folder: Path
    key: str | None
    earlier: Submission | None


class Submissions:
    """Accepts jobs.

    Args:
        loaded: returns the currently loaded model versions.
        reuse_results: whether a job with the tracks, windows and model version of a completed job
            reuses its music.
        min_free_percent: percentage of the disk that must stay free.
    """

    def __init__(
        self,
        database: Database,
        storage: JobStorage,
        submission_table: SubmissionTable,
        leases: Leases,
        metrics: Metrics,
        loaded: Callable[[], LoadedVersions],
        *,
        reuse_results: bool,
        min_free_percent: float,
    ) -> None:
        self._database = database
        self._job_table = JobTable(database)
        self._storage = storage
        self._submission_table = submission_table
        self._leases = leases
        self._metrics = metrics
        self._loaded = loaded
        self._reuse_results = reuse_results
        self._min_free_percent = min_free_percent

    async def count_check(self, client: str) -> None:
        """Counts a check request towards the client's rate limit.

        Raises:
            StorageFullError: the disk is nearly full.
            RateLimitError: the client has made too many requests.
        """
        await check_free_space(self._storage, self._min_free_percent)
        await self._submission_table.count(client)

    @asynccontextmanager
    async def reserve(
        self, client: str, expected_bytes: int, key: str | None
    ) -> AsyncIterator[Reservation]:
        """Reserves a position in the queue for an upload that the block receives and accepts.

        The reservation is withdrawn if the block fails.

        Args:
            client: network address of the client.
            expected_bytes: size of the upload according to its Content-Length; 0 if unknown.
            key: the idempotency key, if one was sent.

        Raises:
            SubmissionError: a limit is reached.
            DatabaseUnavailableError, StorageUnavailableError: try again.
        """
        job_id = uuid.uuid4().hex
        bind_contextvars(job_id=job_id)
        earlier = await self._submission_table.find(key) if key else None
        await check_free_space(self._storage, self._min_free_percent)
        await self._submission_table.admit(
            job_id, client, expected_bytes, repeated=earlier is not None
        )
        self._leases.hold(job_id)
        try:
            await self._storage.create(job_id)
            yield Reservation(job_id, self._storage.workspace(job_id), key, earlier)
        except DatabaseUnavailableError:
            await self._storage.release_workspace(job_id)
            raise  # the job may have been accepted; if not, cleanup deletes the upload
        except BaseException:
            await asyncio.shield(self._withdraw(job_id))
            raise
        finally:
            self._leases.release(job_id)

    async def accept(self, reservation: Reservation, received: Received) -> Accepted | Replayed:
        """Creates a job from an upload, or returns the job that an earlier request created.

        Raises:
            InputError, TrackError: a track or the requested model version cannot be used.
            IdempotencyKeyReusedError: the key was used for a different request.
            NotCheckedError: a track could not be checked.
            UploadExpiredError: the reservation has expired.
            DatabaseUnavailableError, StorageUnavailableError: try again.
        """
        earlier = reservation.earlier
        if earlier is None:
            try:
                return await self._add(reservation, received)
            except sa.exc.IntegrityError:
                # A concurrent request with the same key was accepted first.
                earlier = (
                    await self._submission_table.find(reservation.key) if reservation.key else None
                )
                if earlier is None:
                    raise
        if earlier.body != received.digest:
            raise IdempotencyKeyReusedError(
                f"Idempotency-Key {reservation.key!r} was already used with a different body; use "
                "a new key for a new request"
            )
        await self._withdraw(reservation.job_id)
        bind_contextvars(job_id=earlier.job_id)
        return Replayed(earlier.job_id)

    async def _add(self, reservation: Reservation, received: Received) -> Accepted:
        """Adds the job.

        Raises:
            sqlalchemy.exc.IntegrityError: another request with the same key was accepted.
        """
        job_id, upload = reservation.job_id, received.upload
        self._check_version(upload.wanted_version)
        bind_contextvars(model_version=upload.wanted_version)
        original = await self._copied_result(job_id, upload)
        if original is None:
            tracks = received.tracks.items()
            await check_audio({field: reservation.folder / name for field, name in tracks})
            await self._storage.persist(job_id, *received.tracks.values())
            self._check_version(upload.wanted_version)  # it may have been unloaded since
            add = partial(self._job_table.submit, job_id, upload)
        else:
            add = partial(self._job_table.submit_completed, job_id, upload, original)

        def work(connection: sa.Connection) -> None:
            add(connection)
            self._submission_table.record_key(job_id, reservation.key, received.digest, connection)

        await self._database.write(work)
        self._metrics.accepted.inc()
        if original is not None:
            self._metrics.reused.inc()
        with suppress(StorageUnavailableError):  # cleanup deletes the files later
            if original is not None:
                await self._storage.delete(job_id, *received.tracks.values())
            await self._storage.release_workspace(job_id)
        return Accepted(job_id)

    def _check_version(self, version: str | None) -> None:
        loaded = self._loaded().names
        if version is not None and version not in loaded:
            names = ", ".join(loaded) or "none"
            raise InputError(
                "model_not_loaded",
                f"model_version is {version!r}, which is not loaded; loaded versions: {names}",
            )

    async def _copied_result(self, job_id: str, upload: Upload) -> Job | None:
        """Copies the result of an identical completed job; returns that job, or None."""
        version = upload.wanted_version or self._loaded().version
        if not self._reuse_results or version is None:
            return None
        original = await self._job_table.find_completed(upload.content, version)
        if original is None:
            return None
        try:
            await self._copy_result(original, job_id)
        except FileNotFoundError:  # it is being cleaned up
            return None
        bind_contextvars(model_version=version)
        return original

    async def _copy_result(self, original: Job, job_id: str) -> None:
        with suppress(FileNotFoundError):
            await self._storage.copy(original.id, GENERATED, job_id)
            return
        # The worker renames the result just after the job completes. If it has not yet, do so here.
        await finalize_result(self._storage, original.id, original.lease)
        await self._storage.copy(original.id, GENERATED, job_id)

    async def _withdraw(self, job_id: str) -> None:
        # If this fails, cleanup deletes the upload later.
        with suppress(DatabaseUnavailableError, StorageUnavailableError):
            if await self._submission_table.withdraw(job_id):
                await self._storage.remove(job_id)
