"""What the watch asks, and how long a request waits while workers that may have it come and go.

A server answers as TorchServe does in moments that the real one cannot be brought to reliably: a
request that is never answered, a worker replaced just as a request is sent, one of two that dies.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.errors import InferenceNotStartedError, ModelUnavailableError
from orchestrator.serving import inference
from orchestrator.serving import watcher as watcher_module
from orchestrator.serving.inference import InferenceClient
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.watcher import ModelWatcher
from orchestrator.settings import Settings

LOOK_S = 0.02
NONE_LEFT_S = 0.5
SOME_LEFT_S = 1.5
WAIT_S = 10.0
METRICS = """# TYPE musiclab_model_info gauge
musiclab_model_info{model_version="one",device="cuda0",codec="official",checkpoint="trained"} 1.0
"""


class TorchServe:
    """One version and its READY workers, as the management API describes them.

    Attributes:
        pids: of the workers; None while the server gives no answer that helps.
        looks: how often it was described.
        metrics_read: how often it was asked for its metrics.
        answer: what a request is answered, once there is something.
        arrived: set when a request is here, after `on_arrival` was called.
        connection: that of the request.
    """

    def __init__(self, *pids: int) -> None:
        self.pids: set[int] | None = set(pids)
        self.looks = 0
        self.metrics_read = 0
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()
        self.connection: asyncio.Transport | None = None
        self.on_arrival: Callable[[], None] = lambda: None

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/models/musiclab", self.describe)
        app.router.add_get("/models/musiclab/all", self.describe)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/predictions/musiclab/one", self.predict)
        return app

    async def describe(self, request: web.Request) -> web.Response:
        if self.pids is None:
            return web.Response(status=500)
        self.looks += 1
        workers = [{"status": "READY", "pid": pid} for pid in self.pids]
        described = {"modelVersion": "one", "batchSize": 4, "workers": workers}
        return web.json_response([described | {"jobQueueStatus": {"pendingRequests": 0}}])

    async def metrics(self, request: web.Request) -> web.Response:
        self.metrics_read += 1
        return web.Response(text=METRICS)

    async def predict(self, request: web.Request) -> web.Response:
        self.connection = request.transport
        self.on_arrival()
        self.arrived.set()
        return web.Response(body=await self.answer)

    async def look(self, times: int = 4) -> None:
        """Wait until it was looked at so often; each look asks twice."""
        until = self.looks + 2 * times
        while self.looks < until:
            await asyncio.sleep(LOOK_S)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", LOOK_S)
    monkeypatch.setattr(inference, "NONE_LEFT_S", NONE_LEFT_S)
    monkeypatch.setattr(inference, "SOME_LEFT_S", SOME_LEFT_S)


@asynccontextmanager
async def served(*pids: int) -> AsyncIterator[tuple[TorchServe, InferenceClient]]:
    """A watched TorchServe that has workers with these process ids, and a client of it."""
    server = TorchServe(*pids)
    async with (
        TestServer(server.application(), shutdown_timeout=0) as listening,
        aiohttp.ClientSession() as session,
    ):
        port = listening.port
        assert port is not None
        keys = Tokens(Path("no-keys"), "http://127.0.0.1:1")
        watch = ModelWatcher(session, Settings(management_port=port, metrics_port=port), keys)
        watching = asyncio.create_task(watch.run())
        await watch.next_poll()
        async with asyncio.timeout(WAIT_S):
            yield server, InferenceClient(session, f"http://127.0.0.1:{port}", keys, watch)
        watching.cancel()


async def sent(server: TorchServe, client: InferenceClient) -> asyncio.Task[bytes]:
    """A request that the server has."""
    request = asyncio.create_task(client.generate("one", b"first", b"second", "job"))
    await server.arrived.wait()
    return request


async def seconds_until_given_up(request: asyncio.Task[bytes]) -> float:
    began = time.monotonic()
    with pytest.raises(ModelUnavailableError, match="no answer") as given_up:
        await request
    assert not isinstance(given_up.value, InferenceNotStartedError)
    return time.monotonic() - began


async def test_what_a_version_is_is_asked_again_only_when_it_has_become_ready_anew() -> None:
    async with served(1) as (server, client):
        await server.look()
        assert server.metrics_read == 1
        server.pids = set()
        await server.look()
        assert (client.watcher.status.device, server.metrics_read) == (None, 1)
        server.pids = {2}
        await server.look()
        assert (client.watcher.status.device, server.metrics_read) == ("cuda0", 2)


async def test_the_capacity_is_what_all_ready_workers_batch() -> None:
    async with served(1) as (server, client):
        for pids, capacity in (({1, 2}, 8), (set(), 1), ({3}, 4), (None, 1)):
            server.pids = pids
            await client.watcher.next_poll()
            await client.watcher.next_poll()
            assert client.watcher.status.capacity == capacity, pids


@pytest.mark.parametrize("left", [set(), {2}, None], ids=["dead", "replaced", "server away"])
async def test_a_request_whose_worker_is_gone_is_given_up_soon(left: set[int] | None) -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        await server.look()
        server.pids = left
        assert NONE_LEFT_S <= await seconds_until_given_up(request) < SOME_LEFT_S
        assert server.connection is not None
        while not server.connection.is_closing():  # else the request goes on for nobody
            await asyncio.sleep(LOOK_S)


async def test_a_late_answer_of_a_worker_that_is_gone_is_taken() -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        await server.look()
        server.pids = set()
        await server.look()
        server.answer.set_result(b"music")
        assert await request == b"music"


async def test_where_one_of_two_workers_is_gone_the_other_has_time() -> None:
    async with served(1, 2) as (server, client):
        request = await sent(server, client)
        await server.look()
        server.pids = {2, 3}
        assert await seconds_until_given_up(request) >= SOME_LEFT_S


async def test_a_worker_replaced_while_the_request_is_sent_has_time() -> None:
    async with served(1) as (server, client):
        server.on_arrival = lambda: setattr(server, "pids", {2})
        request = await sent(server, client)
        await asyncio.sleep(2 * NONE_LEFT_S)
        server.answer.set_result(b"music")
        assert await request == b"music"


async def test_a_request_that_waits_for_the_first_worker_has_time() -> None:
    async with served() as (server, client):
        request = await sent(server, client)
        await asyncio.sleep(2 * NONE_LEFT_S)
        server.pids = {1}
        await server.look()
        server.answer.set_result(b"music")
        assert await request == b"music"


async def test_one_look_that_fails_ends_no_request() -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        await server.look()
        server.pids = None
        await asyncio.sleep(4 * LOOK_S)
        assert not client.watcher.status.ready
        server.pids = {1}
        await asyncio.sleep(2 * NONE_LEFT_S)
        server.answer.set_result(b"music")
        assert await request == b"music"


async def test_a_connection_that_breaks_off_may_have_cost_an_attempt() -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        assert server.connection is not None
        server.connection.abort()
        with pytest.raises(ModelUnavailableError, match=r"broke off$") as lost:
            await request
        assert not isinstance(lost.value, InferenceNotStartedError)
