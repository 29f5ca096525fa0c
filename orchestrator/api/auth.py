"""API keys."""

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

from orchestrator.api.app_keys import SETTINGS
from orchestrator.api.errors import RequestError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def require_api_key(handler: Handler) -> Handler:
    """Let a request in only with one of the API keys, when there are any."""

    async def checked(request: web.Request) -> web.StreamResponse:
        keys = request.app[SETTINGS].api_key_list
        if keys and not _has_key(request, keys):
            raise RequestError(
                "unauthorized",
                "This needs an API key: send it as X-API-Key, or as Authorization: Bearer",
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        return await handler(request)

    return checked


def _has_key(request: web.Request, keys: list[str]) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    sent = request.headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")
    return any(hmac.compare_digest(sent.encode(), key.encode()) for key in keys)
