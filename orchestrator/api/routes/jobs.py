"""The status, events, music and deletion of a job."""

import re
from contextlib import suppress

from aiohttp import ETag, web
from structlog.contextvars import bind_contextvars

from orchestrator.api.app_keys import EVENT_FEED, JOB_TABLE, STORAGE, WORKER
from orchestrator.api.auth import require_api_key
from orchestrator.api.errors import RequestError
from orchestrator.jobs.event_feed import Event, JobSnapshot, Subscription, event_of
from orchestrator.jobs.job import FINAL, Job
from orchestrator.storage.base import GENERATED, part_name

routes = web.RouteTableDef()

JOB_ID = re.compile("[0-9a-f]{32}")
DOWNLOAD_NAME = "generated_music.wav"
KEEP_ALIVE_S = 15.0  # proxies close connections that are idle for longer
NO_STORE = {"Cache-Control": "no-store"}
# Without X-Accel-Buffering, nginx would buffer events.
EVENT_STREAM = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", **NO_STORE}


@routes.get("/api/status/{job_id:[^/]+}")
async def status(request: web.Request) -> web.Response:
    snapshot = await _snapshot(request)
    return web.json_response(await request.app[EVENT_FEED].document(snapshot), headers=NO_STORE)


# Not for HEAD, whose response would last as long as the job.
@routes.get("/api/events/{job_id:[^/]+}", allow_head=False)
async def follow(request: web.Request) -> web.StreamResponse:
    """Sends the status as server-sent events: the current one, then each change until the last."""
    seen = _last_event_id(request)
    feed, job_id = request.app[EVENT_FEED], _job_id(request)
    with feed.subscribe(job_id) as subscription:
        snapshot = await _snapshot(request)
        if snapshot.job.state in FINAL and seen >= snapshot.job.revision:
            return web.Response(status=204)  # makes EventSource stop reconnecting
        missed = await feed.events_after(job_id, seen) if 0 < seen < snapshot.job.revision else []
        first = event_of(snapshot.job.revision, await feed.document(snapshot))
        response = web.StreamResponse(headers=EVENT_STREAM)
        await response.prepare(request)
        with suppress(ConnectionError):  # the client disconnected
            known = [each for each in missed if (each.revision or 0) < snapshot.job.revision]
            await _send_events(response, [*known, first], subscription)
    return response


async def _send_events(
    response: web.StreamResponse, known: list[Event], subscription: Subscription
) -> None:
    """Sends `known`, then new events of the subscription, without duplicates."""
    for event in known:
        await _send(response, event)
    sent = known[-1]
    while not sent.final:
        try:
            update = await subscription.next(KEEP_ALIVE_S)
        except TimeoutError:
            await response.write(b": keep-alive\n\n")
            continue
        if update is None:
            return  # shutting down; the client reconnects with Last-Event-ID
        if update.follows(sent):
            await _send(response, update)
            sent = update


async def _send(response: web.StreamResponse, event: Event) -> None:
    number = "" if event.revision is None else f"id: {event.revision}\n"
    await response.write(f"{number}data: {event.data}\n\n".encode())
    if event.model_version is not None:
        bind_contextvars(model_version=event.model_version)


def _last_event_id(request: web.Request) -> int:
    sent = request.headers.get("Last-Event-ID", "0")
    if not (sent.isascii() and sent.isdigit() and len(sent) < 10):
        raise RequestError(
            "invalid_event_id",
            f"Last-Event-ID is {sent[:40]!r}; it must be the ID of an event of this job",
        )
    return int(sent)


@routes.get("/api/download/{job_id:[^/]+}")
async def download(request: web.Request) -> web.Response:
    job = (await _snapshot(request)).job
    if job.state != "completed":
        raise RequestError("not_ready", f"The job is {job.state}; only a completed job has music")
    music = await _music(request.app, job)
    # The music of a job never changes, whichever host serves it.
    tag = ETag(job.id)
    response = web.Response(
        headers={
            "Content-Type": "audio/wav",
            "Content-Disposition": f'attachment; filename="{DOWNLOAD_NAME}"',
            "Accept-Ranges": "bytes",
        }
    )
    response.etag = tag
    if any(known.value in (tag.value, "*") for known in request.if_none_match or ()):
        response.set_status(304)
        return response
    part = _range(request, len(music), tag)
    if part is None:
        response.body = music
        return response
    response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(music)}"
    response.set_status(206)
    response.body = music[part]
    return response


async def _music(app: web.Application, job: Job) -> bytes:
    # The result is renamed just after the job completes, possibly between two of these reads.
    for name in (GENERATED, part_name(job.lease), GENERATED):
        try:
            return await app[STORAGE].read(job.id, name)
        except FileNotFoundError:
            continue
    raise _not_found()  # deleted in the meantime


def _range(request: web.Request, size: int, tag: ETag) -> slice | None:
    """Returns the requested byte range; None for the whole file."""
    condition = request.headers.get("If-Range")
    if "Range" not in request.headers or condition not in (None, f'"{tag.value}"'):
        return None
    try:
        requested = request.http_range
    except ValueError:
        return None  # not a byte range: ignore it
    start, stop, _ = requested.indices(size)
    if start >= stop:
        raise RequestError(
            "invalid_range",
            f"Range is {request.headers['Range'][:40]!r}; it must lie within the {size} bytes "
            "of the file",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return slice(start, stop)


@routes.delete("/api/cleanup/{job_id:[^/]+}")
@require_api_key
async def cleanup(request: web.Request) -> web.Response:
    """Cancels the job if it is not finished, and deletes it with all its files."""
    app, job_id = request.app, _job_id(request)
    if (snapshot := await app[EVENT_FEED].get(job_id)) is not None:
        _bind_version(snapshot)
    # Delete the row first: after that, writes of workers on any host have no effect.
    if not await app[JOB_TABLE].delete(job_id):
        raise _not_found()
    if WORKER in app:
        await app[WORKER].abandon(job_id)
    await app[STORAGE].remove(job_id)
    return web.json_response({"message": "Job cleaned up successfully"})


async def _snapshot(request: web.Request) -> JobSnapshot:
    snapshot = await request.app[EVENT_FEED].get(_job_id(request))
    if snapshot is None:
        raise _not_found()
    _bind_version(snapshot)
    return snapshot


def _job_id(request: web.Request) -> str:
    """Returns the job ID in the path; the database is not queried for malformed IDs."""
    job_id = request.match_info["job_id"]
    if JOB_ID.fullmatch(job_id) is None:
        raise _not_found()
    bind_contextvars(job_id=job_id)
    return job_id


def _bind_version(snapshot: JobSnapshot) -> None:
    bind_contextvars(model_version=snapshot.job.model_version or snapshot.job.wanted_version)


def _not_found() -> RequestError:
    return RequestError("job_not_found", "Job not found", status=404)
