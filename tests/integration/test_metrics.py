"""What the orchestrator tells Prometheus, with a model that answers at once."""

import asyncio

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.settings import Settings
from tests.integration.test_bookkeeping import finished, form, submit
from tests.quick_model import MUSIC, VERSION, Client, with_quick_model

LONGEST_S = 60


async def sample(client: Client, name: str, **labels: str) -> float | None:
    """The value of the one sample on /metrics with this name and these labels; None: no such."""
    answer = await client.get("/metrics")
    assert answer.status == 200, await answer.text()
    values = [
        each.value
        for family in text_string_to_metric_families(await answer.text())
        for each in family.samples
        if each.name == name and each.labels == labels
    ]
    assert len(values) <= 1, f"{name} has {len(values)} samples with the labels {labels}"
    return values[0] if values else None


def test_what_a_version_is_still_needed_for_is_told(settings: Settings) -> None:
    """An unanswered request and a job that named the version, until both have ended."""

    async def scenario() -> None:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def predict(request: web.Request) -> web.Response:
            await request.read()
            asked.set()
            await answer.wait()
            return web.Response(body=MUSIC)

        async def needs(client: Client) -> list[float | None]:
            names = ("musiclab_inference_requests_in_flight", "musiclab_jobs_pinned")
            return [await sample(client, name, model_version=VERSION) for name in names]

        async with asyncio.timeout(LONGEST_S), with_quick_model(settings, predict) as client:
            while await needs(client) != [None, 0]:
                await asyncio.sleep(0.05)  # until the version was seen
            job_id = await submit(client, form(model_version=VERSION))
            await asked.wait()
            assert await needs(client) == [1, 1]
            answer.set()
            await finished(client, job_id)
            assert await needs(client) == [0, 0]
            unpinned = await submit(client, form(start_time="0.1"))
            assert await sample(client, "musiclab_jobs_pinned", model_version=VERSION) == 0
            await finished(client, unpinned)

    asyncio.run(scenario())
