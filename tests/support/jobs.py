"""Jobs of an API: submitting them, polling them, and queueing jobs that are already converted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any

import sqlalchemy as sa
from aiohttp import FormData

from orchestrator.api.app_keys import DATABASE, JOB_TABLE, LEASES, STORAGE
from orchestrator.database.schema import jobs
from orchestrator.jobs.submission_table import SubmissionTable
from orchestrator.settings import Settings
from orchestrator.storage.base import window_name
from tests.support.quick_model import Client, app_of, quick_api
from tests.support.signals import RATE, encoded, noise
from tests.support.tables import NO_LIMITS, UPLOAD, new_id

TIMEOUT_S = 300

TRACK1, TRACK2 = (encoded(noise(RATE // 4, seed)) for seed in (1, 2))


def form(track1: bytes | IO[bytes] = TRACK1, **fields: str) -> FormData:
    data = FormData()
    for name, track in (("track1", track1), ("track2", TRACK2)):
        data.add_field(name, track, filename=f"{name}.wav")
    for name, value in fields.items():
        data.add_field(name, value)
    return data


@asynccontextmanager
async def unlimited_api(settings: Settings, **changed: Any) -> AsyncIterator[Client]:
    """A client of an API with the quick model and no limits on jobs; times out after 300 s."""
    chosen = settings.model_copy(update={"rate_limit": 0, "max_queued": 0, **changed})
    async with asyncio.timeout(TIMEOUT_S), quick_api(chosen) as client:
        yield client


async def submit(client: Client, data: FormData | None = None) -> str:
    response = await client.post("/api/generate", data=data or form())
    assert response.status == 202, await response.text()
    return str((await response.json())["job_id"])


async def status(client: Client, job_id: str) -> dict[str, Any]:
    response = await client.get(f"/api/status/{job_id}")
    assert response.status == 200, await response.text()
    document: dict[str, Any] = await response.json()
    return document


async def finished(client: Client, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (document := await status(client, job_id))["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.02)
    return document


async def converted_job(client: Client) -> str:
    """A queued job whose tracks are already converted; ffmpeg would take a second for it."""
    app, job_id = app_of(client), new_id()
    await SubmissionTable(app[DATABASE], app[LEASES].owner, NO_LIMITS).admit(
        job_id, "192.0.2.1", 1, repeated=False
    )
    await app[STORAGE].create(job_id)
    for track in (1, 2):
        (app[STORAGE].workspace(job_id) / window_name(track)).write_bytes(TRACK1)

    def work(connection: sa.Connection) -> None:
        app[JOB_TABLE].submit(job_id, UPLOAD, connection)
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(converted=True))

    await app[DATABASE].write(work)
    return job_id
