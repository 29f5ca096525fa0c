"""Cross-origin requests: pages of the origins in MUSICLAB_CORS_ORIGINS may call the API."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from orchestrator.api.app_keys import SETTINGS

METHODS = "GET, POST, DELETE"
PREFLIGHT_VALID_S = "600"
EXPOSED = "Location, Content-Disposition, Retry-After, Idempotent-Replayed, ETag, Content-Range"


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers the preflight requests that browsers send before cross-origin requests."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    response = web.Response(status=204)
    if _is_allowed(request):
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Max-Age"] = PREFLIGHT_VALID_S
        requested = request.headers.get("Access-Control-Request-Headers")
        if requested is not None:
            response.headers["Access-Control-Allow-Headers"] = requested
    return response


async def allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """Adds CORS headers to every response, including errors.

    The aiohttp-cors library is not used: it handles only responses of routes, not 404, 405 and 413.
    """
    varies = [response.headers[hdrs.VARY]] if hdrs.VARY in response.headers else []
    response.headers[hdrs.VARY] = ", ".join([*varies, hdrs.ORIGIN])
    if _is_allowed(request):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = EXPOSED


def _is_allowed(request: web.Request) -> bool:
    return request.headers.get("Origin") in request.app[SETTINGS].cors_origin_list
