"""Submitting: limits, keys, repeated requests. No model is needed: the jobs wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import ClientResponse, FormData, ServerDisconnectedError
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api import multipart as form_module
from orchestrator.api.app import create_app
from orchestrator.api.app_keys import JOB_TABLE, STORAGE
from orchestrator.settings import Settings
from tests.support.cache import entries
from tests.support.postgres import PostgresServer
from tests.support.quick_model import Client
from tests.support.signals import RATE, encoded, noise
from tests.support.tables import Backend, new_id

SOUND = [encoded(noise(RATE // 4, seed)) for seed in range(3)]

Scenario = Callable[[Client], Coroutine[Any, Any, None]]


def form(first: int = 0, second: int = 1, **fields: str) -> FormData:
    data = FormData()
    for name, seed in (("track1", first), ("track2", second)):
        data.add_field(name, SOUND[seed], filename=f"{name}.wav")
    for name, value in fields.items():
        data.add_field(name, value)
    return data


async def generate(client: Client, data: FormData | None = None, **headers: str) -> ClientResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/api/generate", data=data or form(), headers=names)


async def job_from_row(answer: ClientResponse) -> str:
    assert answer.status == 202, await answer.text()
    return str((await answer.json())["job_id"])


async def code_of(answer: ClientResponse) -> tuple[int, str]:
    return answer.status, (await answer.json())["code"]


def with_api(settings: Settings, scenario: Scenario, **changed: Any) -> None:
    """A scenario with the API of these settings; TorchServe is away."""

    async def served() -> None:
        app = create_app(settings.model_copy(update=changed))
        async with TestClient(TestServer(app)) as client:
            await scenario(client)

    asyncio.run(served())


@pytest.fixture
def stored(backend: Backend, settings: Settings) -> Settings:
    """Settings with a database of each kind."""
    return settings.model_copy(update={"database_url": backend.url})


def test_the_same_key_gives_the_same_job(stored: Settings) -> None:
    async def scenario(client: Client) -> None:
        first = await generate(client, Idempotency_Key="one")
        again = await generate(client, Idempotency_Key="one")
        assert await job_from_row(first) == await job_from_row(again)
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Idempotent-Replayed"] == "true"
        assert "Idempotent-Replayed" not in first.headers
        other = await job_from_row(await generate(client, Idempotency_Key="two"))
        assert other != await job_from_row(first)
        assert len(entries(stored.cache)) == 2

    with_api(stored, scenario)


def test_the_same_key_at_the_same_time_gives_the_same_job(stored: Settings) -> None:
    async def scenario(client: Client) -> None:
        answers = await asyncio.gather(*(generate(client, Idempotency_Key="one") for _ in range(8)))
        assert len({await job_from_row(answer) for answer in answers}) == 1
        assert len(entries(stored.cache)) == 1

    with_api(stored, scenario, rate_limit=0)


@pytest.mark.parametrize(
    "other", [form(0, 2), form(start_time_1="0.1"), form(1, 0)], ids=["file", "time", "order"]
)
def test_the_same_key_with_another_body_is_refused(settings: Settings, other: FormData) -> None:
    async def scenario(client: Client) -> None:
        job_id = await job_from_row(await generate(client, Idempotency_Key="one"))
        refused = await generate(client, other, Idempotency_Key="one")
        assert await code_of(refused) == (409, "idempotency_key_reused")
        assert entries(settings.cache) == [f"music_{job_id}"]

    with_api(settings, scenario)


def test_a_repeated_request_passes_limits_and_outlives_its_job(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        job_id = await job_from_row(await generate(client, Idempotency_Key="one"))
        assert (await generate(client)).status == 429
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        assert await job_from_row(await generate(client, Idempotency_Key="one")) == job_id
        assert entries(settings.cache) == []

    with_api(settings, scenario, rate_limit=1, max_queued=1)


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
def test_a_key_at_fault_is_refused(settings: Settings, key: str) -> None:
    async def scenario(client: Client) -> None:
        refused = await generate(client, Idempotency_Key=key)
        assert await code_of(refused) == (400, "invalid_idempotency_key")

    with_api(settings, scenario)


def test_the_rate_limit_holds_across_hosts_and_deletions(
    postgres: PostgresServer, settings: Settings
) -> None:
    async def scenario(client: Client) -> None:
        app = create_app(shared, runs_jobs=False)
        async with TestClient(TestServer(app)) as other_host:
            for host in (client, other_host, client):
                job_id = await job_from_row(await generate(host))
                await host.delete(f"/api/cleanup/{job_id}")
            for host in (client, other_host):
                refused = await generate(host)
                assert await code_of(refused) == (429, "too_many_requests")
                assert 50 <= int(refused.headers["Retry-After"]) <= 60

    url = postgres.create_database(f"test_{new_id()}")
    shared = settings.model_copy(update={"database_url": url, "rate_limit": 3})
    with_api(shared, scenario)


def test_the_rate_limit_counts_refused_uploads_but_not_refusals(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        broken = FormData({"track3": "x"}, default_to_multipart=True)
        assert await code_of(await generate(client, broken)) == (400, "unknown_field")
        await job_from_row(await generate(client))
        for _ in range(2):
            refused = await generate(client)
            assert await code_of(refused) == (429, "too_many_requests")
        assert int(refused.headers["Retry-After"]) <= 60

    with_api(settings, scenario, rate_limit=2)


def test_clients_behind_a_trusted_proxy_are_told_apart(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        for forwarded in ("192.0.2.1", "192.0.2.2", "evil, 192.0.2.3", "2001:db8::1"):
            await job_from_row(await generate(client, X_Forwarded_For=forwarded))
        for forwarded in ("192.0.2.1", "evil, 192.0.2.1", "192.0.2.1, 127.0.0.9", "2001:db8::2"):
            refused = await generate(client, X_Forwarded_For=forwarded)
            assert refused.status == 429, forwarded

    with_api(settings, scenario, rate_limit=1, trusted_proxies="127.0.0.0/8")


def test_nobody_else_is_believed_about_addresses(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        await job_from_row(await generate(client, X_Forwarded_For="192.0.2.1"))
        refused = await generate(client, X_Forwarded_For="192.0.2.2")
        assert refused.status == 429

    with_api(settings, scenario, rate_limit=1, trusted_proxies="10.0.0.0/8")


def test_a_full_queue_is_said_to_be(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        first, _ = [await job_from_row(await generate(client)) for _ in range(2)]
        refused = await generate(client)
        assert await code_of(refused) == (503, "queue_full")
        assert int(refused.headers["Retry-After"]) > 0
        await client.delete(f"/api/cleanup/{first}")
        await job_from_row(await generate(client))

    with_api(settings, scenario, max_queued=2)


def test_a_full_storage_is_said_to_be(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        await job_from_row(await generate(client))
        assert await code_of(await generate(client)) == (507, "storage_full")

    size = sum(map(len, SOUND[:2]))
    with_api(settings, scenario, max_stored_gb=1.9 * size / 1e9)


def test_a_disk_that_is_nearly_full_is_said_to_be(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        refused = await generate(client)
        assert await code_of(refused) == (507, "storage_full")
        assert "100" in (await refused.json())["detail"]

    with_api(settings, scenario, min_free_disk_percent=100)


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
def test_api_keys(settings: Settings, headers: dict[str, str], status: int) -> None:
    async def scenario(client: Client) -> None:
        answer = await generate(client, None, **headers)
        assert answer.status == status
        if status == 401:
            assert (await answer.json())["code"] == "unauthorized"
            assert (await client.get("/api/models")).status == 401
            assert (await client.delete("/api/cleanup/x")).status == 401
            return
        job_id = await job_from_row(answer)
        assert (await client.get(f"/api/status/{job_id}")).status == 200
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        assert (await client.get("/api/models", headers=names)).status == 200
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 401
        assert (await client.delete(f"/api/cleanup/{job_id}", headers=names)).status == 200

    with_api(settings, scenario, api_keys="first, second")


def test_without_a_model_the_service_says_so(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        assert await code_of(await client.get("/ready")) == (503, "model_not_ready")
        assert await (await client.get("/api/models")).json() == {"models": []}
        refused = await generate(client, form(model_version="v9"))
        assert await code_of(refused) == (400, "model_not_loaded")
        assert "none" in (await refused.json())["detail"]
        assert await code_of(await client.post("/api/chat")) == (501, "chat_inactive")
        assert entries(settings.cache) == []

    with_api(settings, scenario)


def test_a_database_that_is_away_is_said_to_be(
    postgres: PostgresServer, settings: Settings
) -> None:
    async def scenario(client: Client) -> None:
        job_id = await job_from_row(await generate(client, Idempotency_Key="one"))
        await asyncio.to_thread(postgres.stop)
        try:
            for answer in (
                await client.get(f"/api/status/{job_id}"),
                await generate(client),
            ):
                assert await code_of(answer) == (503, "database_unavailable")
                assert answer.headers["Retry-After"]
            assert (await client.get("/health")).status == 200
            metrics = (await (await client.get("/metrics")).text()).splitlines()
            assert "musiclab_database_up 0.0" in metrics
            assert 'musiclab_refused_requests_total{code="database_unavailable"} 2.0' in metrics
        finally:
            await asyncio.to_thread(postgres.start)
        assert (await client.get(f"/api/status/{job_id}")).status == 200
        assert await job_from_row(await generate(client, Idempotency_Key="one")) == job_id

    url = postgres.create_database(f"test_{new_id()}")
    with_api(settings.model_copy(update={"database_url": url}), scenario)


def test_an_upload_that_stands_still_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_module, "STALLED_S", 0.5)

    async def stalling() -> AsyncIterator[bytes]:
        head = 'Content-Disposition: form-data; name="track1"; filename="a.wav"'
        yield f"--x\r\n{head}\r\n\r\n".encode()
        for _ in range(4):  # slow, but it comes
            yield bytes(2000)
            await asyncio.sleep(0.3)
        await asyncio.sleep(60)

    async def scenario(client: Client) -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        began = time.monotonic()
        refused = await client.post("/api/generate", data=stalling(), headers=headers)
        assert await code_of(refused) == (408, "upload_timeout")
        assert 1.2 < time.monotonic() - began < 20
        assert entries(settings.cache) == []

    with_api(settings, scenario)


def test_what_was_accepted_stays_whatever_happens_until_the_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: Client) -> None:
        app = client.app
        assert app is not None
        release = app[STORAGE].release

        async def cancelled(job_id: str) -> None:
            if await app[JOB_TABLE].get(job_id) is not None:
                raise asyncio.CancelledError
            await release(job_id)

        with monkeypatch.context() as broken:
            broken.setattr(app[STORAGE], "release", cancelled)
            with pytest.raises(ServerDisconnectedError):
                await generate(client, Idempotency_Key="one")
        job_id = await job_from_row(await generate(client, Idempotency_Key="one"))
        assert (await client.get(f"/api/status/{job_id}")).status == 200
        assert entries(settings.cache) == [f"music_{job_id}"]

    with_api(settings, scenario)
