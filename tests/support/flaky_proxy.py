"""A proxy whose connections break, and whose server seems to be away, as a test plans it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

HELD_S = 30


class Fault(Enum):
    """What becomes of a request that is not passed on as it should be."""

    DROPPED = auto()  # before it reaches the server
    ANSWER_LOST = auto()
    ANSWER_CUT = auto()  # after a first piece
    ANSWER_EMPTY = auto()
    ANSWER_HELD = auto()  # as by a proxy that waits for all of it


class FlakyProxy:
    """Passes requests on.

    Attributes:
        plan: what happens to the next requests, in order: nothing for None, and a number is the
            status with which they are answered. Those after it pass.
        streams: what happens to every request for events, beside the plan.
        retry_after: is sent with those statuses.
        seen: every request.
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
        if fault is Fault.ANSWER_EMPTY:
            return web.Response()
        if fault is Fault.ANSWER_HELD:
            await asyncio.sleep(HELD_S)
            return web.Response()
        async with self._session.request(
            request.method, self._server + request.path, data=body, headers=request.headers
        ) as answer:
            if fault is Fault.ANSWER_LOST:
                await answer.read()
                return _aborted(request)
            response = web.StreamResponse(status=answer.status, headers=answer.headers)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
                if fault is Fault.ANSWER_CUT:
                    await asyncio.sleep(0.1)  # the piece arrives before the end
                    return _aborted(request)
            return response


def _aborted(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def flaky_proxy(server: str) -> AsyncIterator[tuple[FlakyProxy, str]]:
    """A proxy in front of the server at that address, and its own address."""
    async with aiohttp.ClientSession() as session:
        proxy = FlakyProxy(server, session)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        async with TestServer(app, shutdown_timeout=0) as listening:
            yield proxy, str(listening.make_url("")).rstrip("/")
