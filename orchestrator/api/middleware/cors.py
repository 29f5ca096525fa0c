"""Cross-origin requests: pages of other origins may call the API if they are named."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from orchestrator.api.app_keys import SETTINGS

METHODS = "GET, POST, DELETE"
PREFLIGHT_VALID_S = "600"
EXPOSED = "Location, Content-Disposition, Retry-After, Idempotent-Replayed, ETag, Content-Range"


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a browser, before it sends a request from another origin, what is allowed."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    answer = web.Response(status=204)
    if _is_allowed(request):
        answer.headers["Access-Control-Allow-Methods"] = METHODS
        answer.headers["Access-Control-Max-Age"] = PREFLIGHT_VALID_S
        asked = request.headers.get("Access-Control-Request-Headers")
        if asked is not None:
            answer.headers["Access-Control-Allow-Headers"] = asked
    return answer


async def allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer, errors too: a page may read it only if its origin is named.

    aiohttp-cors knows the answers of routes alone, not those of 404, 405 and 413.
    """
    varies = [response.headers[hdrs.VARY]] if hdrs.VARY in response.headers else []
    response.headers[hdrs.VARY] = ", ".join([*varies, hdrs.ORIGIN])
    if _is_allowed(request):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = EXPOSED


def _is_allowed(request: web.Request) -> bool:
    return request.headers.get("Origin") in request.app[SETTINGS].cors_origin_list
