"""The model status that APIs derive from the workers on other hosts."""

import asyncio
from dataclasses import replace

from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app, create_worker_app
from orchestrator.serving.status import LoadedVersion, ModelStatus
from orchestrator.settings import Settings
from orchestrator.worker.fleet import merged
from tests.support.postgres import PostgresServer
from tests.support.quick_model import VERSION, Client, quick_model
from tests.support.tables import new_id

V1 = LoadedVersion("v1", default=True, workers=1, ready=1, device="cpu", codec="starter")
V2 = LoadedVersion("v2", default=False, workers=2, ready=2, device="cpu", codec="starter")
READY = ModelStatus(ready=True, version="v1", device="cpu", versions=(V1, V2))
UNAVAILABLE = ModelStatus(ready=False, reason="the model server is unreachable")


def test_one_ready_worker_makes_the_fleet_ready() -> None:
    together = merged([UNAVAILABLE, READY])
    assert (together.ready, together.version) == (True, "v1")
    assert merged([UNAVAILABLE, UNAVAILABLE]) == UNAVAILABLE
    assert merged([]).reason == "no worker is running"


def test_versions_of_all_workers_are_merged() -> None:
    other = replace(READY, version="v2", versions=(replace(V2, default=True),))
    together = merged([READY, other])
    assert [(each.version, each.default, each.ready) for each in together.versions] == [
        ("v1", True, 1),
        ("v2", False, 4),
    ]


async def test_an_api_without_a_model_server_reports_the_status_of_the_workers(
    postgres: PostgresServer, settings: Settings
) -> None:
    shared = settings.model_copy(update={"database_url": postgres.create_database(new_id())})

    async def health(client: Client) -> str:
        return str((await (await client.get("/health")).json())["status"])

    async def reaches(client: Client, state: str) -> None:
        async with asyncio.timeout(15):
            while await health(client) != state:
                await asyncio.sleep(0.1)

    api = create_app(shared, runs_jobs=False)
    async with quick_model(shared) as here, TestClient(TestServer(api)) as client:
        assert await health(client) == "degraded"
        assert (await client.get("/ready")).status == 503
        async with TestClient(TestServer(create_worker_app(here))) as worker:
            await reaches(worker, "healthy")
            await reaches(client, "healthy")
            ready = await client.get("/ready")
            assert await ready.json() == {"status": "ready", "model_version": VERSION}
            (loaded,) = (await (await client.get("/api/models")).json())["models"]
            assert (loaded["version"], loaded["default"]) == (VERSION, True)
            assert "musiclab_jobs_at_work 0.0" in await (await worker.get("/metrics")).text()
            assert (await worker.get("/api/models")).status == 404
        # The worker has deleted its heartbeat, so no timeout has to pass.
        await reaches(client, "degraded")
        reason = (await (await client.get("/health")).json())["reason"]
        assert reason == "no worker is running"
