"""A proxy that injects planned faults: broken connections and an unreachable server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

HELD_S = 30


class Fault(Enum):
    """A fault injected into the forwarding of a request."""

    DROPPED = auto()  # the request does not reach the server
    RESPONSE_LOST = auto()
    RESPONSE_CUT = auto()  # after the first chunk
    RESPONSE_EMPTY = auto()
    RESPONSE_HELD = auto()  # as by a proxy that buffers the whole response


class FlakyProxy:
    """Forwards requests to a server, and injects faults.

    Attributes:
        plan: the fault for each of the next requests, in order. None forwards the request, and a
            number is returned as the status. Later requests are forwarded.
        streams: the fault for every request for an event stream; these do not use `plan`.
        retry_after: Retry-After header of the statuses.
        seen: all requests received.
    """

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self.plan: list[Fault | int | None] = []
        self.streams: Fault | int | None = None
        self.retry_after = "0"
        self.seen: list[web.Request] = []
        self._server = server
        self._session = session

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(request)
        if self.streams is not None and request.path.startswith("/api/events/"):
            fault: Fault | int | None = self.streams
        else:
            fault = self.plan.pop(0) if self.plan else None
        if isinstance(fault, int):
            return web.Response(status=fault, headers={"Retry-After": self.retry_after})
        if fault is Fault.DROPPED:
            return _aborted(request)
        if fault is Fault.RESPONSE_EMPTY:
            return web.Response()
        if fault is Fault.RESPONSE_HELD:
            await asyncio.sleep(HELD_S)
            return web.Response()
        async with self._session.request(
            request.method, self._server + request.path, data=body, headers=request.headers
        ) as upstream:
            if fault is Fault.RESPONSE_LOST:
                await upstream.read()
                return _aborted(request)
            response = web.StreamResponse(status=upstream.status, headers=upstream.headers)
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
                if fault is Fault.RESPONSE_CUT:
                    await asyncio.sleep(0.1)  # so that the chunk arrives before the connection ends
                    return _aborted(request)
            return response


def _aborted(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def flaky_proxy(server: str) -> AsyncIterator[tuple[FlakyProxy, str]]:
    """A proxy in front of the server at that address, and the address of the proxy."""
    async with aiohttp.ClientSession() as session:
        proxy = FlakyProxy(server, session)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        async with TestServer(app, shutdown_timeout=0) as listening:
            yield proxy, str(listening.make_url("")).rstrip("/")
