"""The model is sent as many requests as it batches, and the next ones are ready by then."""

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
LOOK_S = 0.1
AT_WORK = "Generating music..."
WAITS = "Waiting for the model..."


class SlowModel:
    """Answers nobody until it is told to.

    Attributes:
        versions: of the requests that wait for their answer.
        loaded: versions, the default one first.
        most: how many waited at once, at most.
        go: set while requests are answered.
    """

    def __init__(self) -> None:
        self.loaded = [VERSION]
        self.versions: list[str] = []
        self.most = 0
        self.go = asyncio.Event()

    async def predict(self, request: web.Request) -> web.Response:
        await request.read()
        version = request.match_info["version"]
        self.versions.append(version)
        self.most = max(self.most, len(self.versions))
        await self.go.wait()
        self.versions.remove(version)
        return web.Response(body=MUSIC)


@asynccontextmanager
async def slow_model(settings: Settings) -> AsyncIterator[tuple[Client, SlowModel]]:
    """A client of the API and the model that it asks."""
    model = SlowModel()
    async with quick_api(settings, model.predict, model.loaded) as client:
        try:
            yield client, model
        finally:
            model.go.set()  # else the model's server waits for its requests


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", LOOK_S)


async def reached(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    try:
        async with asyncio.timeout(WITHIN_S):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not reached in {WITHIN_S:g} s: {what}") from None


async def messages(client: Client, job_ids: list[str]) -> list[str]:
    return [(await status(client, job_id))["message"] for job_id in job_ids]


async def test_a_batch_is_at_work_and_the_next_one_waits_for_it(settings: Settings) -> None:
    async with slow_model(settings) as (client, model):
        job_ids = [await converted_job(client) for _ in range(2 * BATCH_SIZE + 2)]
        taken, queued = job_ids[: 2 * BATCH_SIZE], job_ids[2 * BATCH_SIZE :]
        # Of those that are taken, whoever is ready first asks first.
        expected = sorted([AT_WORK, WAITS] * BATCH_SIZE)

        async def as_expected() -> bool:
            in_queue = await messages(client, queued) == ["Waiting in the queue"] * 2
            return in_queue and sorted(await messages(client, taken)) == expected

        await reached(f"the messages {expected}, and two in the queue", as_expected)
        await asyncio.sleep(0.5)
        assert await as_expected()
        assert len(model.versions) == BATCH_SIZE
        first = (await messages(client, taken)).index(AT_WORK)
        waiting = (await messages(client, taken)).index(WAITS)
        model.go.set()
        done = [await finished(client, job_id) for job_id in job_ids]
        assert {document["status"] for document in done} == {"completed"}
        assert model.most == BATCH_SIZE
        began, waited = done[first]["timings"], done[waiting]["timings"]
        assert began["generate"] > 0.5 > began["wait"]
        assert waited["wait"] > 0.5 > waited["generate"]


async def test_as_the_model_takes_more_it_is_sent_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 1)
    async with slow_model(settings) as (client, model):
        for _ in range(6):
            await converted_job(client)

        async def at_work(number: int) -> bool:
            return len(model.versions) == number

        await reached("one request", lambda: at_work(1))
        monkeypatch.setattr(module, "BATCH_SIZE", 3)
        await reached("three requests", lambda: at_work(3))
        await asyncio.sleep(2 * LOOK_S)
        assert model.most == 3


async def test_who_waited_is_answered_by_the_version_that_is_the_default_by_then(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 1)
    async with slow_model(settings) as (client, model):
        job_ids = [await converted_job(client) for _ in range(2)]

        async def one_waits() -> bool:
            return sorted(await messages(client, job_ids)) == [AT_WORK, WAITS]

        async def is_default() -> bool:
            health = await (await client.get("/health")).json()
            return bool(health["model_version"] == "newer")

        await reached("one job waits for the other", one_waits)
        by_message = dict(zip(await messages(client, job_ids), job_ids, strict=True))
        first, second = by_message[AT_WORK], by_message[WAITS]
        assert (await status(client, second))["progress"] == 40
        model.loaded.insert(0, "newer")
        await reached("the newer version is the default", is_default)
        model.go.set()
        done = [await finished(client, job_id) for job_id in (first, second)]
        assert [each["model_version"] for each in done] == [VERSION, "newer"]
