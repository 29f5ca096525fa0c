"""One line in the log for each request."""

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from orchestrator.access import client_address

# Asked again and again by pages, load balancers and Prometheus.
POLLED = {"/api/status/{job_id}", "/health", "/ready", "/metrics"}
LONGEST_PATH = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log a request when it is answered; handlers bind the job that it concerns."""
    structlog.contextvars.clear_contextvars()
    began = time.monotonic()
    status = None  # of a request that broke off
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as redirect:
        status = redirect.status
        raise
    finally:
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        tell = log.debug if request.method in ("GET", "HEAD") and route in POLLED else log.info
        tell(
            "request",
            method=request.method,
            # Of what is not there, the path as it was sent: it is still quoted, so of one line.
            path=route or request.rel_url.raw_path[:LONGEST_PATH],
            status=status,
            seconds=round(time.monotonic() - began, 3),
            client=client_address(request),
        )
    return response
