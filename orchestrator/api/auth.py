"""API key authentication."""

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

from orchestrator.api.app_keys import SETTINGS
from orchestrator.api.errors import RequestError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def require_api_key(handler: Handler) -> Handler:
    """Requires one of the configured API keys; without configured keys, allows every request."""

    async def checked(request: web.Request) -> web.StreamResponse:
        keys = request.app[SETTINGS].api_key_list
        if keys and not _has_key(request, keys):
            raise RequestError(
                "unauthorized",
                "An API key is required: send X-API-Key: KEY or Authorization: Bearer KEY",
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        return await handler(request)

    return checked


def _has_key(request: web.Request, keys: list[str]) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    sent = request.headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")
    return any(hmac.compare_digest(sent.encode(), key.encode()) for key in keys)
