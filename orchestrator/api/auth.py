"""Who asks: the client's address behind trusted proxies, and API keys."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import web

from orchestrator.api.app_keys import SETTINGS
from orchestrator.errors import RequestError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def client_address(request: web.Request) -> str:
    """The address that the request comes from.

    X-Forwarded-For is read from its end, where the nearest proxy wrote, and only as far as proxies
    are trusted: anybody may write what they like at its beginning.
    """
    settings = request.app[SETTINGS]
    address = request.remote or ""
    hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    for hop in reversed([hop.strip() for hop in hops]):
        if not hop or not _is_in(address, settings.trusted_networks):
            break
        address = hop
    return address


def _is_in(address: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


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
