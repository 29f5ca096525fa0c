"""Batching: the model receives one batch at a time, and the worker prepares the next one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from orchestrator.serving import watcher as watcher_module
from orchestrator.settings import Settings
from tests.support import quick_model as module
from tests.support.jobs import converted_job, finished, status
from tests.support.quick_model import BATCH_SIZE, MUSIC, VERSION, Client, quick_api

WITHIN_S = 15.0
WATCH_S = 0.1
GENERATING = "Generating music..."
WAITING = "Waiting for the model..."


class SlowModel:
    """A model that holds its responses until `go` is set.

    Attributes:
        versions: the version of each request that waits for its response.
        loaded: the loaded versions, the default version first.
        peak_waiting: the largest number of requests that waited at the same time.
        go: set while responses are sent.
    """

    def __init__(self) -> None:
        self.loaded = [VERSION]
        self.versions: list[str] = []
        self.peak_waiting = 0
        self.go = asyncio.Event()

    async def predict(self, request: web.Request) -> web.Response:
        await request.read()
        version = request.match_info["version"]
        self.versions.append(version)
        self.peak_waiting = max(self.peak_waiting, len(self.versions))
        await self.go.wait()
        self.versions.remove(version)
        return web.Response(body=MUSIC)


@asynccontextmanager
async def slow_model(settings: Settings) -> AsyncIterator[tuple[Client, SlowModel]]:
    """A client of the API, and the model behind the API."""
    model = SlowModel()
    async with quick_api(settings, model.predict, model.loaded) as client:
        try:
            yield client, model
        finally:
            model.go.set()  # otherwise the model server waits for its open requests


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", WATCH_S)


async def reached(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    try:
        async with asyncio.timeout(WITHIN_S):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not reached in {WITHIN_S:g} s: {what}") from None


async def messages(client: Client, job_ids: list[str]) -> list[str]:
    return [(await status(client, job_id))["message"] for job_id in job_ids]


async def test_one_batch_runs_while_the_next_one_waits(settings: Settings) -> None:
    async with slow_model(settings) as (client, model):
        job_ids = [await converted_job(client) for _ in range(2 * BATCH_SIZE + 2)]
        taken, queued = job_ids[: 2 * BATCH_SIZE], job_ids[2 * BATCH_SIZE :]
        # Claimed jobs send their requests in the order in which they become ready.
        expected = sorted([GENERATING, WAITING] * BATCH_SIZE)

        async def as_expected() -> bool:
            in_queue = await messages(client, queued) == ["Waiting in the queue"] * 2
            return in_queue and sorted(await messages(client, taken)) == expected

        await reached(f"the messages {expected}, and two in the queue", as_expected)
        await asyncio.sleep(0.5)
        assert await as_expected()
        assert len(model.versions) == BATCH_SIZE
        first = (await messages(client, taken)).index(GENERATING)
        waiting = (await messages(client, taken)).index(WAITING)
        model.go.set()
        done = [await finished(client, job_id) for job_id in job_ids]
        assert {document["status"] for document in done} == {"completed"}
        assert model.peak_waiting == BATCH_SIZE
        began, waited = done[first]["timings"], done[waiting]["timings"]
        assert began["generate"] > 0.5 > began["wait"]
        assert waited["wait"] > 0.5 > waited["generate"]


async def test_more_requests_are_sent_when_the_batch_size_grows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 1)
    async with slow_model(settings) as (client, model):
        for _ in range(6):
            await converted_job(client)

        async def are_running(number: int) -> bool:
            return len(model.versions) == number

        await reached("one request", lambda: are_running(1))
        monkeypatch.setattr(module, "BATCH_SIZE", 3)
        await reached("three requests", lambda: are_running(3))
        await asyncio.sleep(2 * WATCH_S)
        assert model.peak_waiting == 3


async def test_a_waiting_job_uses_the_version_that_is_the_default_when_it_is_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 1)
    async with slow_model(settings) as (client, model):
        job_ids = [await converted_job(client) for _ in range(2)]

        async def one_waits() -> bool:
            return sorted(await messages(client, job_ids)) == [GENERATING, WAITING]

        async def is_default() -> bool:
            health = await (await client.get("/health")).json()
            return bool(health["model_version"] == "newer")

        await reached("one job waits for the other", one_waits)
        by_message = dict(zip(await messages(client, job_ids), job_ids, strict=True))
        first, second = by_message[GENERATING], by_message[WAITING]
        assert (await status(client, second))["progress"] == 40
        model.loaded.insert(0, "newer")
        await reached("the newer version is the default", is_default)
        model.go.set()
        done = [await finished(client, job_id) for job_id in (first, second)]
        assert [each["model_version"] for each in done] == [VERSION, "newer"]
