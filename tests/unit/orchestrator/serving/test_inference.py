"""How TorchServe is polled, and how long a request waits when the workers it was sent to exit.

A fake server reproduces situations that cannot be provoked reliably in TorchServe: a request that
is never answered, a worker replaced while a request is sent, one of two workers exiting.
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

POLL_S = 0.02
ALL_LOST_TIMEOUT_S = 0.5
SOME_LOST_TIMEOUT_S = 1.5
WAIT_S = 10.0
METRICS = """# TYPE musiclab_model_info gauge
musiclab_model_info{model_version="one",device="cuda0",codec="official",checkpoint="trained"} 1.0
"""


class TorchServe:
    """One version and its READY workers, as the management API describes them.

    Attributes:
        pids: process ids of the workers; None makes the server return errors.
        polls: how many times the version was described.
        metrics_read: how many times the metrics were read.
        response: the response body of requests, once it is set.
        arrived: set when a request has arrived, after `on_arrival` was called.
        connection: the connection of the request.
    """

    def __init__(self, *pids: int) -> None:
        self.pids: set[int] | None = set(pids)
        self.polls = 0
        self.metrics_read = 0
        self.response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
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
        self.polls += 1
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
        return web.Response(body=await self.response)

    async def wait_for_polls(self, times: int = 4) -> None:
        """Wait for this many polls; each one requests two descriptions."""
        until = self.polls + 2 * times
        while self.polls < until:
            await asyncio.sleep(POLL_S)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", POLL_S)
    monkeypatch.setattr(inference, "ALL_LOST_TIMEOUT_S", ALL_LOST_TIMEOUT_S)
    monkeypatch.setattr(inference, "SOME_LOST_TIMEOUT_S", SOME_LOST_TIMEOUT_S)


@asynccontextmanager
async def served(*pids: int) -> AsyncIterator[tuple[TorchServe, InferenceClient]]:
    """A polled server whose workers have these process ids, and a client of it."""
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
    """A request that has arrived at the server."""
    request = asyncio.create_task(client.generate("one", b"first", b"second", "job"))
    await server.arrived.wait()
    return request


async def seconds_until_abandoned(request: asyncio.Task[bytes]) -> float:
    began = time.monotonic()
    with pytest.raises(ModelUnavailableError, match="did not respond") as raised:
        await request
    assert not isinstance(raised.value, InferenceNotStartedError)
    return time.monotonic() - began


async def test_metrics_are_read_again_only_when_a_version_becomes_ready_again() -> None:
    async with served(1) as (server, client):
        await server.wait_for_polls()
        assert server.metrics_read == 1
        server.pids = set()
        await server.wait_for_polls()
        assert (client.watcher.status.device, server.metrics_read) == (None, 1)
        server.pids = {2}
        await server.wait_for_polls()
        assert (client.watcher.status.device, server.metrics_read) == ("cuda0", 2)


async def test_the_capacity_is_the_total_batch_size_of_ready_workers() -> None:
    async with served(1) as (server, client):
        for pids, capacity in (({1, 2}, 8), (set(), 1), ({3}, 4), (None, 1)):
            server.pids = pids
            await client.watcher.next_poll()
            await client.watcher.next_poll()
            assert client.watcher.status.capacity == capacity, pids


@pytest.mark.parametrize("left", [set(), {2}, None], ids=["dead", "replaced", "failing polls"])
async def test_a_request_is_abandoned_soon_after_its_only_worker_exits(
    left: set[int] | None,
) -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        await server.wait_for_polls()
        server.pids = left
        assert ALL_LOST_TIMEOUT_S <= await seconds_until_abandoned(request) < SOME_LOST_TIMEOUT_S
        assert server.connection is not None
        while not server.connection.is_closing():  # otherwise the request goes on without a client
            await asyncio.sleep(POLL_S)


async def test_a_late_response_of_an_exited_worker_is_accepted() -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        await server.wait_for_polls()
        server.pids = set()
        await server.wait_for_polls()
        server.response.set_result(b"music")
        assert await request == b"music"


async def test_a_request_waits_longer_if_one_of_two_workers_remains() -> None:
    async with served(1, 2) as (server, client):
        request = await sent(server, client)
        await server.wait_for_polls()
        server.pids = {2, 3}
        assert await seconds_until_abandoned(request) >= SOME_LOST_TIMEOUT_S


async def test_a_request_sent_while_its_worker_is_replaced_is_not_abandoned_soon() -> None:
    async with served(1) as (server, client):
        server.on_arrival = lambda: setattr(server, "pids", {2})
        request = await sent(server, client)
        await asyncio.sleep(2 * ALL_LOST_TIMEOUT_S)
        server.response.set_result(b"music")
        assert await request == b"music"


async def test_a_request_that_waits_for_the_first_worker_is_not_abandoned_soon() -> None:
    async with served() as (server, client):
        request = await sent(server, client)
        await asyncio.sleep(2 * ALL_LOST_TIMEOUT_S)
        server.pids = {1}
        await server.wait_for_polls()
        server.response.set_result(b"music")
        assert await request == b"music"


async def test_a_failed_poll_ends_no_request() -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        await server.wait_for_polls()
        server.pids = None
        await asyncio.sleep(4 * POLL_S)
        assert not client.watcher.status.ready
        server.pids = {1}
        await asyncio.sleep(2 * ALL_LOST_TIMEOUT_S)
        server.response.set_result(b"music")
        assert await request == b"music"


async def test_a_lost_connection_counts_as_a_started_inference() -> None:
    async with served(1) as (server, client):
        request = await sent(server, client)
        assert server.connection is not None
        server.connection.abort()
        with pytest.raises(
            ModelUnavailableError, match=r"connection to the model server was lost$"
        ) as lost:
            await request
        assert not isinstance(lost.value, InferenceNotStartedError)
