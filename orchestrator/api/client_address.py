"""Determines the client address of a request, including behind trusted proxies."""

import ipaddress

from aiohttp import web

from orchestrator.api.app_keys import SETTINGS


def client_address(request: web.Request) -> str:
    """Returns the client address of the request.

    X-Forwarded-For is read from its end, where the nearest proxy appended an address, and only as
    long as the proxies are trusted: clients can put arbitrary addresses at its beginning.
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
