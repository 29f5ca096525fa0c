"""The API while TorchServe is down: nothing is lost, and nothing is spent."""

import asyncio

from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.app import create_app
from orchestrator.settings import Settings
from tests.signals import RATE, encoded, noise


def test_jobs_wait_and_can_be_deleted(settings: Settings) -> None:
    async def scenario() -> None:
        async with TestClient(TestServer(create_app(settings))) as client:
            health = await (await client.get("/health")).json()
            assert (health["status"], health["model_loaded"]) == ("degraded", False)
            assert health["reason"]

            form = FormData()
            for name in ("track1", "track2"):
                form.add_field(name, encoded(noise(RATE, 1)), filename=f"{name}.wav")
            accepted = await client.post("/api/generate", data=form)
            assert accepted.status == 202
            job_id = (await accepted.json())["job_id"]

            await asyncio.sleep(3)  # time in which a worker that does not wait would try
            status = await (await client.get(f"/api/status/{job_id}")).json()
            assert (status["status"], status["progress"], status["attempts"]) == ("queued", 0, 0)
            assert status["queue_position"] == 1
            early = await client.get(f"/api/download/{job_id}")
            assert (early.status, (await early.json())["code"]) == (400, "not_ready")

            assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
            assert list(settings.cache.iterdir()) == []

    asyncio.run(scenario())
