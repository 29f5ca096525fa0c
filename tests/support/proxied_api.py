"""An API without a model behind a flaky proxy, and a client of the proxy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.api.app import create_app
from orchestrator.client import MusicLabClient
from orchestrator.settings import Settings
from tests.support.flaky_proxy import FlakyProxy, flaky_proxy
from tests.support.signals import RATE, encoded, noise


def track(folder: Path, seed: int) -> Path:
    path = folder / f"caf\u00e9 {seed}.wav"
    path.write_bytes(encoded(noise(2 * RATE, seed)))
    return path


@dataclass(frozen=True)
class ProxiedApi:
    """An API without a model behind a flaky proxy, and a client of the proxy."""

    app: web.Application
    proxy: FlakyProxy
    client: MusicLabClient

    async def submit(self, tracks: tuple[Path, Path], **more: Any) -> str:
        return await asyncio.to_thread(self.client.submit, *tracks, **more)


@asynccontextmanager
async def proxied_api(settings: Settings, **changed: Any) -> AsyncIterator[ProxiedApi]:
    """An API with these settings and no rate limit, behind a flaky proxy."""
    app = create_app(settings.model_copy(update={"rate_limit": 0} | changed))
    async with (
        TestServer(app) as server,
        flaky_proxy(str(server.make_url("")).rstrip("/")) as (proxy, url),
    ):
        yield ProxiedApi(app, proxy, MusicLabClient(url))
