"""Checks whether POST /api/generate would accept a track, without creating a job."""

import re
import tempfile
from pathlib import Path

from aiohttp import web

from orchestrator.api.app_keys import METRICS, SCRATCH, SETTINGS, SUBMISSIONS
from orchestrator.api.auth import require_api_key
from orchestrator.api.client_address import client_address
from orchestrator.api.errors import RequestError
from orchestrator.api.multipart import check_headers, read_track, repeated_field, unknown_field
from orchestrator.audio import probing
from orchestrator.audio.validation import TRACK_FIELDS, check_audio, check_name, check_size

routes = web.RouteTableDef()

PATH = "/api/check/{track:[^/]+}"
FIELDS = ("name", "size")
SIZE = re.compile("[0-9]{1,18}")
NO_STORE = {"Cache-Control": "no-store"}


@routes.get(PATH)
async def check_by_name(request: web.Request) -> web.Response:
    """Checks a file's name and size, without an upload and without queries to other services."""
    field = _field(request)
    name, size = _query_value(request, "name"), _query_value(request, "size")
    for other in request.query:
        if other not in FIELDS:
            raise unknown_field(other, FIELDS)
    if SIZE.fullmatch(size) is None:
        raise RequestError(
            "invalid_size", f"size is {size[:40]!r}; it must be the size of the file in bytes"
        )
    check_name(field, name)
    check_size(field, int(size), request.app[SETTINGS].max_track_bytes)
    return web.Response(status=204, headers=NO_STORE)


@routes.post(PATH)
@require_api_key
async def check_content(request: web.Request) -> web.Response:
    """Checks a file's content as POST /api/generate would; the upload is deleted afterwards."""
    app, field = request.app, _field(request)
    settings = app[SETTINGS]
    check_headers(request, [field], settings.max_body_bytes)
    await app[SUBMISSIONS].count_check(client_address(request))
    with tempfile.TemporaryDirectory(prefix="check_", dir=app[SCRATCH]) as name:
        folder = Path(name)
        track = await read_track(request, field, folder, settings.max_track_bytes)
        app[METRICS].uploaded_bytes.inc(track.size)
        await check_audio({field: folder / track.name})
        seconds = await probing.duration(folder / track.name)
    return web.json_response({"duration_s": None if seconds is None else round(seconds, 3)})


def _field(request: web.Request) -> str:
    field = request.match_info["track"]
    if field not in TRACK_FIELDS:
        raise unknown_field(field, TRACK_FIELDS)
    return field


def _query_value(request: web.Request, field: str) -> str:
    """Returns the value of a query field, which must be sent exactly once."""
    values = request.query.getall(field, [])
    if not values:
        raise RequestError(
            "missing_field", f"{field} is missing; send ?name=NAME&size=BYTES in the query"
        )
    if len(values) > 1:
        raise repeated_field(field)
    return values[0]
