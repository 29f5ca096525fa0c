"""A client of an API that has no model, so that jobs stay in the queue."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, FormData
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app
from orchestrator.api.app_keys import SCRATCH
from orchestrator.settings import Settings
from tests.support.cache import entries
from tests.support.quick_model import Client, app_of
from tests.support.signals import RATE, encoded, noise

SOUND = [encoded(noise(RATE // 4, seed)) for seed in range(3)]


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


async def accepted(response: ClientResponse) -> str:
    assert response.status == 202, await response.text()
    return str((await response.json())["job_id"])


async def status_and_code(response: ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["code"]


@asynccontextmanager
async def api(settings: Settings, **changed: Any) -> AsyncIterator[Client]:
    """A client of the API with these settings; TorchServe is not running."""
    app = create_app(settings.model_copy(update=changed))
    async with TestClient(TestServer(app)) as client:
        yield client


def scratch(client: Client) -> Path:
    """The scratch directory, for uploads that belong to no job."""
    return app_of(client)[SCRATCH]


def assert_nothing_left(client: Client, settings: Settings) -> None:
    assert list(scratch(client).iterdir()) == []
    assert entries(settings.cache) == []
