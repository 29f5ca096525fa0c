"""Which versions of the model are in use, for `musiclab model deploy`."""

from aiohttp import web

from orchestrator.api.app_keys import DATABASE, METRICS
from orchestrator.api.gauges import count_in_flight, count_pinned

routes = web.RouteTableDef()


@routes.get("/in-flight")
async def in_flight(request: web.Request) -> web.Response:
    """Requests and jobs of each version in use; no jobs while the database does not answer."""
    pinned = await count_pinned(request.app[DATABASE])
    sent = count_in_flight(request.app[METRICS])
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
