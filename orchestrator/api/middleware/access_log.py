"""One line in the log for each request."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from orchestrator.api.client_address import client_address
from orchestrator.api.middleware.http_metrics import route_of

# Asked again and again by pages, load balancers, Prometheus and `musiclab model deploy`.
POLLED = {"/api/status/{job_id}", "/health", "/ready", "/metrics", "/in-flight"}
LONGEST_PATH = 200

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
        route = route_of(request)
        log_line = log.debug if request.method in ("GET", "HEAD") and route in POLLED else log.info
        log_line(
            "request",
            method=request.method,
            # Of what is not there, the path as it was sent: it is still quoted, so of one line.
            path=route or request.rel_url.raw_path[:LONGEST_PATH],
            status=status,
            seconds=round(time.monotonic() - began, 3),
            client=client_address(request),
        )
    return response
