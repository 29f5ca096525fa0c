"""A repeated request reuses the result of the first one."""

import asyncio

from orchestrator.api.app_keys import STORAGE
from orchestrator.settings import Settings
from orchestrator.storage.base import GENERATED, part_name
from tests.support.jobs import finished, form, status, submit, unlimited_api
from tests.support.quick_model import MUSIC, VERSION, app_of


async def test_a_result_that_is_not_finalized_is_reused(backend_settings: Settings) -> None:
    async with unlimited_api(backend_settings) as client:
        app = app_of(client)
        first = await submit(client)
        await finished(client, first)
        async with asyncio.timeout(10):
            while await app[STORAGE].list_names(first) != {GENERATED}:
                await asyncio.sleep(0.01)
        await app[STORAGE].rename(first, GENERATED, part_name(1))  # its name before it is finalized
        second = await submit(client)
        assert (await status(client, second))["status"] == "completed"
        for job_id in (first, second):
            assert await app[STORAGE].list_names(job_id) == {GENERATED}
            assert await (await client.get(f"/api/download/{job_id}")).read() == MUSIC


async def test_a_repeated_request_reuses_the_existing_result(backend_settings: Settings) -> None:
    async with unlimited_api(backend_settings) as client:
        app = app_of(client)
        first = await submit(client)
        await finished(client, first)
        second = await submit(client)
        assert second != first
        reused = await status(client, second)
        assert (reused["status"], reused["attempts"], reused["model_version"]) == (
            "completed",
            0,
            VERSION,
        )
        assert (await client.delete(f"/api/cleanup/{second}")).status == 200
        assert await (await client.get(f"/api/download/{first}")).read() == MUSIC
        third = await submit(client)
        await client.delete(f"/api/cleanup/{first}")
        assert await (await client.get(f"/api/download/{third}")).read() == MUSIC
        assert await app[STORAGE].list_names(third) == {"generated.wav"}
        other = await submit(client, form(start_time="0.1"))
        assert (await status(client, other))["status"] != "completed"
        named = await submit(client, form(model_version=VERSION))
        assert (await status(client, named))["status"] == "completed"


async def test_reuse_can_be_disabled(settings: Settings) -> None:
    async with unlimited_api(settings, reuse_results=False) as client:
        for _ in range(2):
            done = await finished(client, await submit(client))
            assert done["attempts"] == 1
