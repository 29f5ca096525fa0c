"""How an API and a worker report the versions in use, and how a deployment reads the reports."""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app, create_worker_app
from orchestrator.releases.draining import uses_at
from orchestrator.settings import Settings
from tests.support.jobs import finished, form, submit
from tests.support.postgres import PostgresServer
from tests.support.quick_model import MUSIC, VERSION, Client, quick_api, quick_model
from tests.support.tables import new_id

LONGEST_S = 60
UNUSED = {"database": True, "model_versions": {}}


async def in_flight(client: Client) -> dict[str, Any]:
    response = await client.get("/in-flight")
    assert response.status == 200, await response.text()
    content: dict[str, Any] = await response.json()
    return content


async def users(client: Client) -> list[str]:
    """Returns the users of the version as a deployment lists them, with the address as URL."""
    url = str(client.make_url("")).rstrip("/")
    return [user.replace(url, "URL") for user in await asyncio.to_thread(uses_at, url, VERSION)]


async def model_seen(client: Client) -> None:
    while (await client.get("/ready")).status != 200:
        await asyncio.sleep(0.05)


class HeldModel:
    """A model that holds its responses until `respond` is set."""

    def __init__(self) -> None:
        self.received, self.respond = asyncio.Event(), asyncio.Event()

    async def predict(self, request: web.Request) -> web.Response:
        await request.read()
        self.received.set()
        await self.respond.wait()
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
        await model.received.wait()
        content = await in_flight(client)
        counts = content["model_versions"][VERSION]
        assert content == {"database": True, "model_versions": {VERSION: counts}}
        assert counts["pinned"] == 1
        assert counts["in_flight"] in (1, 2)  # the tracks of the second may still be in conversion
        working, waiting = await users(client)
        assert working.endswith(" requests are in progress at URL")
        assert waiting == "1 jobs request it by name at URL"
        model.respond.set()
        await finished(client, pinned)
        await finished(client, unpinned)
        assert (await in_flight(client), await users(client)) == (UNUSED, [])


async def test_an_api_and_a_worker_report_the_versions_in_use(
    postgres: PostgresServer, settings: Settings
) -> None:
    """Jobs are in the shared database; only the worker has requests in flight."""
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
        await model.received.wait()
        reports = {"api": await in_flight(api), "worker": await in_flight(worker)}
        assert {name: each["model_versions"] for name, each in reports.items()} == {
            "api": {VERSION: {"in_flight": 0, "pinned": 1}},
            "worker": {VERSION: {"in_flight": 1, "pinned": 1}},
        }
        model.respond.set()
        await finished(api, job_id)
        assert await in_flight(worker) == await in_flight(api) == UNUSED


async def test_without_the_database_only_requests_are_reported(
    postgres: PostgresServer, settings: Settings
) -> None:
    shared = settings.model_copy(update={"database_url": postgres.create_database(new_id())})

    model = HeldModel()
    async with asyncio.timeout(LONGEST_S), quick_api(shared, model.predict) as client:
        await model_seen(client)
        await submit(client, form(model_version=VERSION))
        await model.received.wait()
        await asyncio.to_thread(postgres.stop)
        try:
            assert await in_flight(client) == {
                "database": False,
                "model_versions": {VERSION: {"in_flight": 1, "pinned": None}},
            }
            assert await users(client) == [
                "1 requests are in progress at URL",
                "jobs at URL that request it by name cannot be counted: database unreachable",
            ]
        finally:
            await asyncio.to_thread(postgres.start)
            model.respond.set()
