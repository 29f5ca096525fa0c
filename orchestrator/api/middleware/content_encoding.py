"""Rejects compressed requests, because a small body can decompress to gigabytes."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from orchestrator.api.errors import RequestError


@web.middleware
async def reject_content_encoding(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Rejects a request with any Content-Encoding.

    Start the server with `auto_decompress=False`; otherwise aiohttp decompresses bodies first.

    Raises:
        RequestError: `unsupported_content_encoding`.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is None:
        return await handler(request)
    raise RequestError(
        "unsupported_content_encoding",
        f"Content-Encoding is {encoding[:40]!r}; send the body uncompressed, without this header",
        status=415,
        headers={hdrs.ACCEPT_ENCODING: "identity"},  # as RFC 9110 recommends
    )
