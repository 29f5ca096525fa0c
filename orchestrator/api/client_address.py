"""The address that a request comes from, behind trusted proxies."""

import ipaddress

from aiohttp import web

from orchestrator.api.app_keys import SETTINGS


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
