"""Lists the model versions in use, for `musiclab model deploy`."""

from contextlib import suppress

from aiohttp import web

from orchestrator.api.app_keys import DATABASE, METRICS
from orchestrator.errors import DatabaseUnavailableError
from orchestrator.jobs.counts import count_pinned

routes = web.RouteTableDef()


@routes.get("/in-flight")
async def in_flight(request: web.Request) -> web.Response:
    """Returns requests and jobs per version; `pinned` is null if the database is unreachable."""
    pinned = None
    with suppress(DatabaseUnavailableError):
        pinned = await count_pinned(request.app[DATABASE])
    sent = request.app[METRICS].requests_to_model()
    return web.json_response(
        {
            "database": pinned is not None,
            "model_versions": {
                version: {
                    "in_flight": sent.get(version, 0),
                    "pinned": None if pinned is None else pinned.get(version, 0),
                }
                for version in sorted(sent.keys() | (pinned or {}).keys())
            },
        }
    )
