"""POST /api/generate: two tracks become a job."""

import asyncio
import uuid
from contextlib import suppress
from functools import partial

import sqlalchemy as sa
from aiohttp import web
from structlog.contextvars import bind_contextvars

from orchestrator.api.app_keys import (
    ADMISSION,
    DATABASE,
    JOB_TABLE,
    LEASES,
    METRICS,
    SETTINGS,
    STORAGE,
    WATCHER,
    WORKER,
)
from orchestrator.api.auth import client_address, require_api_key
from orchestrator.api.multipart import Form, check_headers, read_form
from orchestrator.audio.validation import TRACK_FIELDS, check_audio
from orchestrator.errors import DatabaseUnavailableError, RequestError, StorageUnavailableError
from orchestrator.jobs.admission import Submission, check_free_space
from orchestrator.jobs.cleanup import finalize_result
from orchestrator.jobs.table import Job
from orchestrator.storage.base import GENERATED, JobStorage

routes = web.RouteTableDef()

LONGEST_KEY = 255


@routes.post("/api/generate")
@require_api_key
async def generate(request: web.Request) -> web.Response:
    """Store both tracks and queue the job; answers once neither can be lost."""
    app, job_id = request.app, uuid.uuid4().hex
    bind_contextvars(job_id=job_id)
    check_headers(request, TRACK_FIELDS, app[SETTINGS].max_body_bytes)
    key = _idempotency_key(request)
    earlier = await app[ADMISSION].find(key) if key else None
    await check_free_space(app[STORAGE], app[SETTINGS].min_free_disk_percent)
    await app[ADMISSION].admit(
        job_id,
        client_address(request),
        min(request.content_length or 0, 2 * app[SETTINGS].max_track_bytes),
        repeated=earlier is not None,
    )
    app[LEASES].hold(job_id)
    try:
        await app[STORAGE].create(job_id)
        folder = app[STORAGE].workspace(job_id)
        form = await read_form(request, folder, app[SETTINGS].max_track_bytes)
        app[METRICS].uploaded_bytes.inc(form.upload.size)
        earlier = earlier or await _accept(request, job_id, key, form)
        if earlier is None:
            return _accepted(job_id)
        if earlier.body != form.digest:
            raise RequestError(
                "idempotency_key_reused",
                f"Idempotency-Key {key!r} was sent before, with another body; use a new key for a "
                "new request",
                status=409,
            )
        await _withdraw(app, job_id)
        bind_contextvars(job_id=earlier.job_id)
        return _accepted(earlier.job_id, repeated=True)
    except DatabaseUnavailableError:
        await app[STORAGE].release(job_id)
        raise  # it may have been accepted; if not, the sweep finds it
    except BaseException:
        await asyncio.shield(_withdraw(app, job_id))
        raise
    finally:
        app[LEASES].release_lease(job_id)


def _accepted(job_id: str, *, repeated: bool = False) -> web.Response:
    headers = {"Location": f"/api/status/{job_id}"}
    if repeated:
        headers["Idempotent-Replayed"] = "true"
    return web.json_response(
        {"job_id": job_id, "status": "queued", "message": "Generation started"},
        status=202,
        headers=headers,
    )


async def _withdraw(app: web.Application, job_id: str) -> None:
    with suppress(DatabaseUnavailableError, StorageUnavailableError):  # then the sweep does it
        if await app[ADMISSION].withdraw(job_id):
            await app[STORAGE].remove(job_id)


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None or (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        return key
    raise RequestError(
        "invalid_idempotency_key",
        f"Idempotency-Key is {key[:40]!r}; it has to be 1 to {LONGEST_KEY} printable ASCII "
        "characters, best a UUID",
    )


async def _accept(
    request: web.Request, job_id: str, key: str | None, form: Form
) -> Submission | None:
    """Make a job of the upload; returns the earlier one that has its idempotency key, if any."""
    app = request.app
    _check_version(request, form.wanted_version)
    bind_contextvars(model_version=form.wanted_version)
    original = await _copied_result(request, job_id, form)
    if original is None:
        folder = app[STORAGE].workspace(job_id)
        tracks = zip(TRACK_FIELDS, form.names, strict=True)
        await check_audio({field: folder / name for field, name in tracks})
        await app[STORAGE].keep(job_id, *form.names)
        _check_version(request, form.wanted_version)  # it may have been unloaded meanwhile
        add = partial(app[JOB_TABLE].submit, job_id, form.upload)
    else:
        add = partial(app[JOB_TABLE].submit_completed, job_id, form.upload, original)

    def work(connection: sa.Connection) -> None:
        add(connection)
        app[ADMISSION].remember(job_id, key, form.digest, connection)

    try:
        await app[DATABASE].write(work)
    except sa.exc.IntegrityError:
        # The same request came twice at once, and the other one was quicker.
        return None if key is None else await app[ADMISSION].find(key)
    app[METRICS].accepted.inc()
    with suppress(StorageUnavailableError):  # then the sweep does it
        if original is not None:
            app[METRICS].reused.inc()
            await app[STORAGE].delete(job_id, *form.names)
        await app[STORAGE].release(job_id)
    if WORKER in app:
        app[WORKER].wake()
    return None


def _check_version(request: web.Request, version: str | None) -> None:
    status = request.app[WATCHER].status
    if version is not None and status.find(version) is None:
        loaded = ", ".join(each.version for each in status.versions) or "none at the moment"
        raise RequestError(
            "model_not_loaded",
            f"model_version is {version!r}, which is not loaded; loaded: {loaded}",
        )


async def _copied_result(request: web.Request, job_id: str, form: Form) -> Job | None:
    """The earlier job that made this music already, after this one got a copy of it."""
    app = request.app
    version = form.wanted_version or app[WATCHER].status.version
    if not app[SETTINGS].reuse_results or version is None:
        return None
    original = await app[JOB_TABLE].find_completed(form.upload.content, version)
    if original is None:
        return None
    try:
        await _copy_result(app[STORAGE], original, job_id)
    except FileNotFoundError:  # it is being cleaned up
        return None
    bind_contextvars(model_version=version)
    return original


async def _copy_result(files: JobStorage, original: Job, job_id: str) -> None:
    with suppress(FileNotFoundError):
        await files.copy(original.id, GENERATED, job_id)
        return
    # A result is given its name just after the job is completed, maybe just now.
    await finalize_result(files, original.id, original.lease)
    await files.copy(original.id, GENERATED, job_id)
