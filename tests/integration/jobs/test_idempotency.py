"""A request that is repeated with the same idempotency key is accepted once."""

import asyncio

import pytest
from aiohttp import FormData

from orchestrator.settings import Settings
from tests.support.api import accepted, api, form, generate, status_and_code
from tests.support.cache import entries
from tests.support.tables import Backend


@pytest.fixture
def database_settings(backend: Backend, settings: Settings) -> Settings:
    """Settings for each kind of database."""
    return settings.model_copy(update={"database_url": backend.url})


async def test_the_same_key_returns_the_same_job(database_settings: Settings) -> None:
    async with api(database_settings) as client:
        first = await generate(client, Idempotency_Key="one")
        again = await generate(client, Idempotency_Key="one")
        assert await accepted(first) == await accepted(again)
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Idempotent-Replayed"] == "true"
        assert "Idempotent-Replayed" not in first.headers
        other = await accepted(await generate(client, Idempotency_Key="two"))
        assert other != await accepted(first)
        assert len(entries(database_settings.cache)) == 2


async def test_concurrent_requests_with_the_same_key_return_the_same_job(
    database_settings: Settings,
) -> None:
    async with api(database_settings, rate_limit=0) as client:
        responses = await asyncio.gather(
            *(generate(client, Idempotency_Key="one") for _ in range(8))
        )
        assert len({await accepted(response) for response in responses}) == 1
        assert len(entries(database_settings.cache)) == 1


@pytest.mark.parametrize(
    "other", [form(0, 2), form(start_time_1="0.1"), form(1, 0)], ids=["file", "time", "order"]
)
async def test_the_same_key_with_another_body_is_rejected(
    settings: Settings, other: FormData
) -> None:
    async with api(settings) as client:
        job_id = await accepted(await generate(client, Idempotency_Key="one"))
        rejected = await generate(client, other, Idempotency_Key="one")
        assert await status_and_code(rejected) == (409, "idempotency_key_reused")
        assert entries(settings.cache) == [f"music_{job_id}"]


async def test_a_replay_bypasses_limits_and_works_after_its_job_is_deleted(
    settings: Settings,
) -> None:
    async with api(settings, rate_limit=1, max_queued=1) as client:
        job_id = await accepted(await generate(client, Idempotency_Key="one"))
        assert (await generate(client)).status == 429
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        assert await accepted(await generate(client, Idempotency_Key="one")) == job_id
        assert entries(settings.cache) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
async def test_an_invalid_key_is_rejected(settings: Settings, key: str) -> None:
    async with api(settings) as client:
        rejected = await generate(client, Idempotency_Key=key)
        assert await status_and_code(rejected) == (400, "invalid_idempotency_key")
