"""A client of a real TorchServe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from orchestrator.serving.inference import InferenceClient
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.watcher import ModelWatcher
from orchestrator.settings import Settings
from tests.support.signals import SEGMENT, encoded, noise

TRACKS = encoded(noise(SEGMENT, 1)), encoded(noise(SEGMENT, 2))


@asynccontextmanager
async def inference_client(settings: Settings) -> AsyncIterator[InferenceClient]:
    """A client of one TorchServe, whose watcher has polled it once."""
    async with aiohttp.ClientSession() as session:
        keys = Tokens(settings.key_file, settings.management_url)
        watcher = ModelWatcher(session, settings, keys)
        url = f"http://127.0.0.1:{settings.inference_port}"
        running = asyncio.create_task(watcher.run())
        await watcher.next_poll()
        try:
            yield InferenceClient(session, url, keys, watcher)
        finally:
            running.cancel()
