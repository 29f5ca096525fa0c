"""Logs one event for each request."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from orchestrator.api.client_address import client_address
from orchestrator.api.middleware.http_metrics import route_of

# Routes polled by pages, load balancers, Prometheus and `musiclab model deploy`.
POLLED = {"/api/status/{job_id}", "/health", "/ready", "/metrics", "/in-flight"}
MAX_PATH_LENGTH = 200

log = structlog.get_logger()


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Logs a request when it ends; handlers bind its job to the log context."""
    structlog.contextvars.clear_contextvars()
    began = time.monotonic()
    status = None  # if the request is aborted
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
            # Without a route, the raw path: it is percent-encoded, so it has no line breaks.
            path=route or request.rel_url.raw_path[:MAX_PATH_LENGTH],
            status=status,
            seconds=round(time.monotonic() - began, 3),
            client=client_address(request),
        )
    return response
