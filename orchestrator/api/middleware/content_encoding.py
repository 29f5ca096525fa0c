"""Refuses compressed requests: a few bytes of them may decompress to gigabytes."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from orchestrator.api.errors import RequestError


@web.middleware
async def refuse_content_encoding(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a request with any Content-Encoding.

    aiohttp must not decompress it before: the server needs `auto_decompress=False`.

    Raises:
        RequestError: `unsupported_content_encoding`.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is None:
        return await handler(request)
    raise RequestError(
        "unsupported_content_encoding",
        f"Content-Encoding is {encoding[:40]!r}; send the body as it is, without that header",
        status=415,
        headers={hdrs.ACCEPT_ENCODING: "identity"},  # what would be right, as RFC 9110 has it
    )
