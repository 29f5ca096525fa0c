"""POST /api/generate: creates a job from two tracks."""

from aiohttp import web

from orchestrator.api.app_keys import METRICS, SETTINGS, SUBMISSIONS, WORKER
from orchestrator.api.auth import require_api_key
from orchestrator.api.client_address import client_address
from orchestrator.api.errors import RequestError
from orchestrator.api.multipart import check_headers, read_form
from orchestrator.audio.validation import TRACK_FIELDS
from orchestrator.jobs.submission import Accepted, Received, Replayed

routes = web.RouteTableDef()

MAX_KEY_LENGTH = 255


@routes.post("/api/generate")
@require_api_key
async def generate(request: web.Request) -> web.Response:
    """Stores both tracks and queues the job; responds once the tracks and the job are durable."""
    app, settings = request.app, request.app[SETTINGS]
    check_headers(request, TRACK_FIELDS, settings.max_body_bytes)
    key = _idempotency_key(request)
    expected_bytes = min(request.content_length or 0, 2 * settings.max_track_bytes)
    submissions = app[SUBMISSIONS]
    async with submissions.reserve(client_address(request), expected_bytes, key) as reservation:
        form = await read_form(request, reservation.folder, settings.max_track_bytes)
        app[METRICS].uploaded_bytes.inc(form.upload.size)
        received = Received(form.upload, form.track_names, form.digest)
        result = await submissions.accept(reservation, received)
    if WORKER in app:
        app[WORKER].wake()
    return _response(result)


def _response(result: Accepted | Replayed) -> web.Response:
    headers = {"Location": f"/api/status/{result.job_id}"}
    if isinstance(result, Replayed):
        headers["Idempotent-Replayed"] = "true"
    return web.json_response(
        {"job_id": result.job_id, "status": "queued", "message": "Generation started"},
        status=202,
        headers=headers,
    )


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None or (0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        return key
    raise RequestError(
        "invalid_idempotency_key",
        f"Idempotency-Key is {key[:40]!r}; it must be 1 to {MAX_KEY_LENGTH} printable "
        "ASCII characters, ideally a UUID",
    )
