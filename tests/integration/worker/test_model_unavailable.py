"""The API while TorchServe is down: jobs wait, and no attempts are counted."""

import asyncio

import pytest

from orchestrator.settings import Settings
from orchestrator.worker import worker
from tests.support.api import accepted, api, form, generate, status_and_code
from tests.support.cache import entries


async def test_jobs_wait_and_can_be_deleted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL_S", 0.05)
    async with api(settings) as client:
        health = await (await client.get("/health")).json()
        assert (health["status"], health["model_loaded"]) == ("degraded", False)
        assert health["reason"]

        job_id = await accepted(await generate(client))
        await asyncio.sleep(1)  # a worker that did not wait for the model would have tried by now
        status = await (await client.get(f"/api/status/{job_id}")).json()
        assert (status["status"], status["progress"], status["attempts"]) == ("queued", 0, 0)
        assert status["queue_position"] == 1
        early = await client.get(f"/api/download/{job_id}")
        assert (early.status, (await early.json())["code"]) == (400, "not_ready")

        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        assert entries(settings.cache) == []


async def test_the_api_reports_that_no_model_is_available(settings: Settings) -> None:
    async with api(settings) as client:
        assert await status_and_code(await client.get("/ready")) == (503, "model_not_ready")
        assert await (await client.get("/api/models")).json() == {"models": []}
        rejected = await generate(client, form(model_version="v9"))
        assert await status_and_code(rejected) == (400, "model_not_loaded")
        assert "none" in (await rejected.json())["detail"]
        assert await status_and_code(await client.post("/api/chat")) == (501, "chat_inactive")
        assert entries(settings.cache) == []
