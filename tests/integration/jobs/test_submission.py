"""Submitting a job: API keys, an unreachable database, stalled uploads, lost responses."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import ServerDisconnectedError

from orchestrator.api import multipart as form_module
from orchestrator.api.app_keys import JOB_TABLE, STORAGE
from orchestrator.settings import Settings
from tests.support.api import accepted, api, generate, status_and_code
from tests.support.cache import entries
from tests.support.postgres import PostgresServer
from tests.support.quick_model import app_of
from tests.support.tables import new_id


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X_API_Key": "wrong"}, 401),
        ({"Authorization": "Basic first"}, 401),
        ({"X_API_Key": "first"}, 202),
        ({"Authorization": "Bearer second"}, 202),
    ],
)
async def test_generating_and_deleting_require_an_api_key(
    settings: Settings, headers: dict[str, str], status: int
) -> None:
    async with api(settings, api_keys="first, second") as client:
        response = await generate(client, None, **headers)
        assert response.status == status
        if status == 401:
            assert (await response.json())["code"] == "unauthorized"
            assert (await client.get("/api/models")).status == 401
            assert (await client.delete("/api/cleanup/x")).status == 401
            return
        job_id = await accepted(response)
        assert (await client.get(f"/api/status/{job_id}")).status == 200
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        assert (await client.get("/api/models", headers=names)).status == 200
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 401
        assert (await client.delete(f"/api/cleanup/{job_id}", headers=names)).status == 200


async def test_an_unreachable_database_is_reported(
    postgres: PostgresServer, settings: Settings
) -> None:
    url = postgres.create_database(f"test_{new_id()}")
    async with api(settings.model_copy(update={"database_url": url})) as client:
        job_id = await accepted(await generate(client, Idempotency_Key="one"))
        await asyncio.to_thread(postgres.stop)
        try:
            for response in (
                await client.get(f"/api/status/{job_id}"),
                await generate(client),
            ):
                assert await status_and_code(response) == (503, "database_unavailable")
                assert response.headers["Retry-After"]
            assert (await client.get("/health")).status == 200
            metrics = (await (await client.get("/metrics")).text()).splitlines()
            assert "musiclab_database_up 0.0" in metrics
            assert 'musiclab_refused_requests_total{code="database_unavailable"} 2.0' in metrics
        finally:
            await asyncio.to_thread(postgres.start)
        assert (await client.get(f"/api/status/{job_id}")).status == 200
        assert await accepted(await generate(client, Idempotency_Key="one")) == job_id


async def test_a_stalled_upload_is_aborted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_module, "STALL_TIMEOUT_S", 0.5)

    async def stalling() -> AsyncIterator[bytes]:
        head = 'Content-Disposition: form-data; name="track1"; filename="a.wav"'
        yield f"--x\r\n{head}\r\n\r\n".encode()
        for _ in range(4):  # slow, but not stalled
            yield bytes(2000)
            await asyncio.sleep(0.3)
        await asyncio.sleep(60)

    async with api(settings) as client:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        began = time.monotonic()
        rejected = await client.post("/api/generate", data=stalling(), headers=headers)
        assert await status_and_code(rejected) == (408, "upload_timeout")
        assert 1.2 < time.monotonic() - began < 20
        assert entries(settings.cache) == []


async def test_an_accepted_job_is_kept_when_the_response_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(settings) as client:
        app = app_of(client)
        release = app[STORAGE].release_workspace

        async def cancelled(job_id: str) -> None:
            if await app[JOB_TABLE].get(job_id) is not None:
                raise asyncio.CancelledError
            await release(job_id)

        with monkeypatch.context() as broken:
            broken.setattr(app[STORAGE], "release_workspace", cancelled)
            with pytest.raises(ServerDisconnectedError):
                await generate(client, Idempotency_Key="one")
        job_id = await accepted(await generate(client, Idempotency_Key="one"))
        assert (await client.get(f"/api/status/{job_id}")).status == 200
        assert entries(settings.cache) == [f"music_{job_id}"]
