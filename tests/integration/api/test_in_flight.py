"""What an API and a worker say of the versions that they use, and what a deployment makes of it."""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app, create_worker_app
from orchestrator.releases.draining import users_of
from orchestrator.settings import Settings
from tests.support.jobs import finished, form, submit
from tests.support.postgres import PostgresServer
from tests.support.quick_model import MUSIC, VERSION, Client, quick_api, quick_model
from tests.support.tables import new_id

LONGEST_S = 60
UNUSED = {"database": True, "model_versions": {}}


async def in_flight(client: Client) -> dict[str, Any]:
    answer = await client.get("/in-flight")
    assert answer.status == 200, await answer.text()
    content: dict[str, Any] = await answer.json()
    return content


async def users(client: Client) -> list[str]:
    """Who uses the version, as a deployment is told, without the address."""
    url = str(client.make_url("")).rstrip("/")
    return [user.replace(url, "URL") for user in await asyncio.to_thread(users_of, url, VERSION)]


async def model_seen(client: Client) -> None:
    while (await client.get("/ready")).status != 200:
        await asyncio.sleep(0.05)


class HeldModel:
    """Answers no request before `answer` is set."""

    def __init__(self) -> None:
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def predict(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked.set()
        await self.answer.wait()
        return web.Response(body=MUSIC)


async def test_a_version_is_in_use_until_its_requests_are_answered(settings: Settings) -> None:
    model = HeldModel()
    async with (
        asyncio.timeout(LONGEST_S),
        quick_api(settings, model.predict) as client,
    ):
        await model_seen(client)
        assert (await in_flight(client), await users(client)) == (UNUSED, [])
        pinned = await submit(client, form(model_version=VERSION))
        unpinned = await submit(client, form(start_time="0.1"))
        await model.asked.wait()
        content = await in_flight(client)
        counts = content["model_versions"][VERSION]
        assert content == {"database": True, "model_versions": {VERSION: counts}}
        assert counts["pinned"] == 1
        assert counts["in_flight"] in (1, 2)  # the second may still be converted
        working, waiting = await users(client)
        assert working.endswith(" requests are at work at URL")
        assert waiting == "1 jobs asked for it by name at URL"
        model.answer.set()
        await finished(client, pinned)
        await finished(client, unpinned)
        assert (await in_flight(client), await users(client)) == (UNUSED, [])


async def test_an_api_and_a_worker_each_say_what_they_use(
    postgres: PostgresServer, settings: Settings
) -> None:
    """The jobs are in the database that both share; the requests are the worker's alone."""
    shared = settings.model_copy(update={"database_url": postgres.create_database(new_id())})

    model = HeldModel()
    api_app = create_app(shared, runs_jobs=False)
    async with (
        asyncio.timeout(LONGEST_S),
        quick_model(shared, model.predict) as here,
        TestClient(TestServer(api_app)) as api,
        TestClient(TestServer(create_worker_app(here))) as worker,
    ):
        await model_seen(api)
        job_id = await submit(api, form(model_version=VERSION))
        await model.asked.wait()
        said = {"api": await in_flight(api), "worker": await in_flight(worker)}
        assert {name: each["model_versions"] for name, each in said.items()} == {
            "api": {VERSION: {"in_flight": 0, "pinned": 1}},
            "worker": {VERSION: {"in_flight": 1, "pinned": 1}},
        }
        model.answer.set()
        await finished(api, job_id)
        assert await in_flight(worker) == await in_flight(api) == UNUSED


async def test_without_the_database_the_requests_are_known_and_the_jobs_are_not(
    postgres: PostgresServer, settings: Settings
) -> None:
    shared = settings.model_copy(update={"database_url": postgres.create_database(new_id())})

    model = HeldModel()
    async with asyncio.timeout(LONGEST_S), quick_api(shared, model.predict) as client:
        await model_seen(client)
        await submit(client, form(model_version=VERSION))
        await model.asked.wait()
        await asyncio.to_thread(postgres.stop)
        try:
            assert await in_flight(client) == {
                "database": False,
                "model_versions": {VERSION: {"in_flight": 1, "pinned": None}},
            }
            assert await users(client) == [
                "1 requests are at work at URL",
                "URL does not know who asked for it by name: its database is away",
            ]
        finally:
            await asyncio.to_thread(postgres.start)
            model.answer.set()
