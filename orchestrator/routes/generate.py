"""POST /api/generate: two tracks become a job."""

import asyncio
import uuid
from contextlib import suppress
from functools import partial

import sqlalchemy as sa
import structlog
from aiohttp import web
from structlog.contextvars import bind_contextvars

from orchestrator import ffmpeg
from orchestrator.access import client_address, needs_key
from orchestrator.admission import Submission
from orchestrator.errors import (
    ConversionError,
    DatabaseAwayError,
    FilesUnavailableError,
    MediaError,
    RequestError,
)
from orchestrator.files import GENERATED
from orchestrator.form import TRACK_FIELDS, Form, read_form
from orchestrator.jobs import Job
from orchestrator.keys import (
    ADMISSION,
    DATABASE,
    FILES,
    LEASES,
    METRICS,
    SETTINGS,
    TABLE,
    WATCH,
    WORKER,
)

routes = web.RouteTableDef()

log = structlog.get_logger()

LONGEST_KEY = 255


@routes.post("/api/generate")
@needs_key
async def generate(request: web.Request) -> web.Response:
    """Store both tracks and queue the job; answers once neither can be lost."""
    app, job_id = request.app, uuid.uuid4().hex
    bind_contextvars(job_id=job_id)
    _check_headers(request)
    key = _idempotency_key(request)
    earlier = await app[ADMISSION].find(key) if key else None
    await _check_disk(request)
    await app[ADMISSION].admit(
        job_id,
        client_address(request),
        min(request.content_length or 0, 2 * app[SETTINGS].max_track_bytes),
        repeated=earlier is not None,
    )
    app[LEASES].hold(job_id)
    try:
        await app[FILES].create(job_id)
        folder = app[FILES].workspace(job_id)
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
    except DatabaseAwayError:
        await app[FILES].release(job_id)
        raise  # it may have been accepted; if not, the sweep finds it
    except BaseException:
        await asyncio.shield(_withdraw(app, job_id))
        raise
    finally:
        app[LEASES].let_go(job_id)


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
    with suppress(DatabaseAwayError, FilesUnavailableError):  # then the sweep does it
        if await app[ADMISSION].withdraw(job_id):
            await app[FILES].remove(job_id)


def _check_headers(request: web.Request) -> None:
    limit = request.app[SETTINGS].max_body_bytes
    if (request.content_length or 0) > limit:
        raise RequestError(
            "request_too_large",
            f"The request has {request.content_length:,} bytes; at most {limit:,} are taken",
            status=413,
        )
    if request.content_type != "multipart/form-data":
        raise RequestError(
            "not_multipart",
            f"The request is of type {request.content_type}; send track1 and track2 as files of "
            "multipart/form-data",
        )


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None or (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        return key
    raise RequestError(
        "invalid_idempotency_key",
        f"Idempotency-Key is {key[:40]!r}; it has to be 1 to {LONGEST_KEY} printable ASCII "
        "characters, best a UUID",
    )


async def _check_disk(request: web.Request) -> None:
    needed = request.app[SETTINGS].min_free_disk_percent
    disk = await request.app[FILES].disk()
    free = 100 * disk.free / disk.size
    if free < needed:
        raise RequestError(
            "storage_full",
            f"Only {free:.1f} % of the disk are free, and {needed} % have to stay so",
            status=507,
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
        await _check_audio(request, job_id, form)
        await app[FILES].keep(job_id, *form.names)
        _check_version(request, form.wanted_version)  # it may have been unloaded meanwhile
        add = partial(app[TABLE].submit, job_id, form.upload)
    else:
        add = partial(app[TABLE].submit_completed, job_id, form.upload, original)

    def work(connection: sa.Connection) -> None:
        add(connection)
        app[ADMISSION].remember(job_id, key, form.digest, connection)

    try:
        await app[DATABASE].write(work)
    except sa.exc.IntegrityError:
        # The same request came twice at once, and the other one was quicker.
        return None if key is None else await app[ADMISSION].find(key)
    app[METRICS].accepted.inc()
    with suppress(FilesUnavailableError):  # then the sweep does it
        if original is not None:
            app[METRICS].reused.inc()
            await app[FILES].delete(job_id, *form.names)
        await app[FILES].release(job_id)
    if WORKER in app:
        app[WORKER].wake()
    return None


def _check_version(request: web.Request, version: str | None) -> None:
    status = request.app[WATCH].status
    if version is not None and status.find(version) is None:
        loaded = ", ".join(each.version for each in status.versions) or "none at the moment"
        raise RequestError(
            "model_not_loaded",
            f"model_version is {version!r}, which is not loaded; loaded: {loaded}",
        )


async def _check_audio(request: web.Request, job_id: str, form: Form) -> None:
    folder = request.app[FILES].workspace(job_id)
    try:
        sound = await asyncio.gather(*(ffmpeg.has_audio(folder / name) for name in form.names))
    except MediaError as error:
        raise RequestError(error.code, str(error)) from error
    except ConversionError as error:
        log.error("tracks cannot be looked at", reason=str(error))
        raise RequestError(
            "not_checked",
            "The tracks cannot be looked at just now; try again",
            status=503,
            retry_after_s=5,
        ) from error
    for field, has_audio in zip(TRACK_FIELDS, sound, strict=True):
        if not has_audio:
            raise RequestError("not_audio", f"{field} holds no audio that can be decoded")


async def _copied_result(request: web.Request, job_id: str, form: Form) -> Job | None:
    """The earlier job that made this music already, after this one got a copy of it."""
    app = request.app
    version = form.wanted_version or app[WATCH].status.version
    if not app[SETTINGS].reuse_results or version is None:
        return None
    original = await app[TABLE].find_completed(form.upload.content, version)
    if original is None:
        return None
    try:
        await app[FILES].copy(original.id, GENERATED, job_id)
    except FileNotFoundError:  # it is being cleaned up
        return None
    bind_contextvars(model_version=version)
    return original
