"""Counts requests and measures their duration."""

import time

from aiohttp import web
from aiohttp.typedefs import Handler

from orchestrator.api.app_keys import METRICS

# Clients choose methods and paths freely, and each combination of labels stays in memory.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OTHER_METHOD = "other"
NO_ROUTE = "none"


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Measures requests; the outermost middleware.

    Requests whose client disconnects before the response are not counted.
    """
    metrics = request.app[METRICS]
    labels = _method(request), route_of(request) or NO_ROUTE
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


def route_of(request: web.Request) -> str | None:
    """Returns the path template, such as `/api/status/{job_id}`; None if no route matches."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical
