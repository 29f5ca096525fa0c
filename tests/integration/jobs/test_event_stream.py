"""The event stream of a job, and how clients resume it."""

import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientResponse

from orchestrator.api.app_keys import WORKER
from orchestrator.settings import Settings
from tests.support.jobs import status, submit, unlimited_api
from tests.support.quick_model import app_of


async def events(response: ClientResponse) -> AsyncIterator[tuple[int | None, dict[str, Any]]]:
    """Yields the id and the document of each event until the stream ends."""
    assert response.content_type == "text/event-stream"
    async for block in _blocks(response):
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        if "data" in fields:
            number = fields.get("id")
            yield None if number is None else int(number), json.loads(fields["data"])


async def _blocks(response: ClientResponse) -> AsyncIterator[str]:
    while block := await response.content.readuntil(b"\n\n"):
        yield block.decode()


async def test_the_stream_sends_every_change_and_ends(settings: Settings) -> None:
    async with unlimited_api(settings) as client:
        job_id = await submit(client)
        received = [each async for each in events(await client.get(f"/api/events/{job_id}"))]
        numbers = [number for number, _ in received if number is not None]
        assert numbers == sorted(numbers)
        assert received[-1][1] == await status(client, job_id)
        assert received[-1][1]["status"] == "completed"

        # A client that reconnects after event 2 receives all later events, and only those.
        again = await client.get(f"/api/events/{job_id}", headers={"Last-Event-ID": "2"})
        missed = [each async for each in events(again)]
        assert [number for number, _ in missed] == list(range(3, numbers[-1] + 1))
        progress = [document["progress"] for _, document in missed]
        assert progress == sorted(progress)
        over = await client.get(
            f"/api/events/{job_id}", headers={"Last-Event-ID": str(numbers[-1])}
        )
        assert over.status == 204
        rejected = await client.get(f"/api/events/{job_id}", headers={"Last-Event-ID": "x"})
        assert (rejected.status, (await rejected.json())["code"]) == (400, "invalid_event_id")


async def test_the_stream_sends_queue_positions_and_the_deletion(settings: Settings) -> None:
    async with unlimited_api(settings) as client:
        app = app_of(client)
        await app[WORKER].finish(0)  # no more jobs are claimed
        first, second = [await submit(client) for _ in range(2)]
        received = events(await client.get(f"/api/events/{second}"))
        number, document = await anext(received)
        assert (number, document["queue_position"]) == (1, 2)
        await client.delete(f"/api/cleanup/{first}")
        number, document = await anext(received)
        assert (number, document["queue_position"]) == (1, 1)
        await client.delete(f"/api/cleanup/{second}")
        assert await anext(received) == (None, {"job_id": second, "status": "deleted"})
        assert [each async for each in received] == []
