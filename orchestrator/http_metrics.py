"""Counts and times the requests of an application."""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from orchestrator.keys import METRICS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Methods and paths are the client's to choose, and each combination is kept for good.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OTHER_METHOD = "other"
NO_ROUTE = "none"


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around all other middlewares. A client that goes before it is answered is not counted."""
    metrics = request.app[METRICS]
    labels = _method(request), _route(request)
    began = time.perf_counter()

    def count(status: int) -> None:
        metrics.requests.labels(*labels, status).inc()
        metrics.request_seconds.labels(*labels).observe(time.perf_counter() - began)

    with metrics.requests_in_flight.track_inprogress():
        try:
            response = await handler(request)
        except web.HTTPException as redirection:
            count(redirection.status)
            raise
        count(response.status)
        return response


def _method(request: web.Request) -> str:
    return request.method if request.method in METHODS else OTHER_METHOD


def _route(request: web.Request) -> str:
    """The template of the path, as `/api/status/{job_id}`."""
    resource = request.match_info.route.resource
    return NO_ROUTE if resource is None else resource.canonical
