"""Requests that are rejected: rate limit exceeded, queue full, storage full."""

from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app
from orchestrator.settings import Settings
from tests.support.api import SOUND, accepted, api, generate, status_and_code
from tests.support.postgres import PostgresServer
from tests.support.tables import new_id


async def test_the_rate_limit_holds_across_hosts_and_deletions(
    postgres: PostgresServer, settings: Settings
) -> None:
    url = postgres.create_database(f"test_{new_id()}")
    shared = settings.model_copy(update={"database_url": url, "rate_limit": 3})
    async with api(shared) as client:
        app = create_app(shared, runs_jobs=False)
        async with TestClient(TestServer(app)) as other_host:
            for host in (client, other_host, client):
                job_id = await accepted(await generate(host))
                await host.delete(f"/api/cleanup/{job_id}")
            for host in (client, other_host):
                rejected = await generate(host)
                assert await status_and_code(rejected) == (429, "too_many_requests")
                assert 50 <= int(rejected.headers["Retry-After"]) <= 60


async def test_the_rate_limit_counts_invalid_uploads_but_not_rate_limited_requests(
    settings: Settings,
) -> None:
    async with api(settings, rate_limit=2) as client:
        broken = FormData({"track3": "x"}, default_to_multipart=True)
        assert await status_and_code(await generate(client, broken)) == (400, "unknown_field")
        await accepted(await generate(client))
        for _ in range(2):
            rejected = await generate(client)
            assert await status_and_code(rejected) == (429, "too_many_requests")
        assert int(rejected.headers["Retry-After"]) <= 60


async def test_clients_behind_a_trusted_proxy_are_limited_separately(settings: Settings) -> None:
    async with api(settings, rate_limit=1, trusted_proxies="127.0.0.0/8") as client:
        for forwarded in ("192.0.2.1", "192.0.2.2", "evil, 192.0.2.3", "2001:db8::1"):
            await accepted(await generate(client, X_Forwarded_For=forwarded))
        for forwarded in ("192.0.2.1", "evil, 192.0.2.1", "192.0.2.1, 127.0.0.9", "2001:db8::2"):
            rejected = await generate(client, X_Forwarded_For=forwarded)
            assert rejected.status == 429, forwarded


async def test_addresses_forwarded_by_untrusted_clients_are_ignored(settings: Settings) -> None:
    async with api(settings, rate_limit=1, trusted_proxies="10.0.0.0/8") as client:
        await accepted(await generate(client, X_Forwarded_For="192.0.2.1"))
        rejected = await generate(client, X_Forwarded_For="192.0.2.2")
        assert rejected.status == 429


async def test_a_full_queue_rejects_requests(settings: Settings) -> None:
    async with api(settings, max_queued=2) as client:
        first, _ = [await accepted(await generate(client)) for _ in range(2)]
        rejected = await generate(client)
        assert await status_and_code(rejected) == (503, "queue_full")
        assert int(rejected.headers["Retry-After"]) > 0
        await client.delete(f"/api/cleanup/{first}")
        await accepted(await generate(client))


async def test_full_storage_rejects_requests(settings: Settings) -> None:
    size = sum(map(len, SOUND[:2]))
    async with api(settings, max_stored_gb=1.9 * size / 1e9) as client:
        await accepted(await generate(client))
        assert await status_and_code(await generate(client)) == (507, "storage_full")


async def test_a_nearly_full_disk_rejects_requests(settings: Settings) -> None:
    async with api(settings, min_free_disk_percent=100) as client:
        rejected = await generate(client)
        assert await status_and_code(rejected) == (507, "storage_full")
        assert "100" in (await rejected.json())["detail"]
