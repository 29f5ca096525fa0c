"""Deleting a job that is being converted, or is about to be completed."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import psutil
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app, create_worker_app
from orchestrator.api.app_keys import STORAGE
from orchestrator.settings import Settings
from tests.support.cache import entries
from tests.support.jobs import form, submit, unlimited_api
from tests.support.quick_model import quick_model
from tests.support.tracks import make_endless_wav
from tests.system.deletion_races import race_deletions

RACES = 80


async def test_deleting_a_job_ends_its_ffmpeg_within_a_second(
    settings: Settings, tmp_path: Path
) -> None:
    long = make_endless_wav(tmp_path / "long.wav", 50 * 2**20)
    async with unlimited_api(settings) as client:
        with long.open("rb") as file:
            job_id = await submit(client, form(file, start_time_1="1e6"))
        async with asyncio.timeout(20):
            while not ffmpeg_processes():
                await asyncio.sleep(0.01)
        began = time.monotonic()
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        assert time.monotonic() - began < 1
        assert ffmpeg_processes() == []
        assert entries(settings.cache) == []
        assert (await client.get(f"/api/status/{job_id}")).status == 404


async def test_deleting_a_job_ends_its_ffmpeg_on_another_host(
    shared: Settings, tmp_path: Path
) -> None:
    long = make_endless_wav(tmp_path / "long.wav", 50 * 2**20)
    api = create_app(shared, runs_jobs=False)
    async with (
        quick_model(shared) as host,
        TestClient(TestServer(create_worker_app(host))),
        TestClient(TestServer(api)) as client,
    ):
        with long.open("rb") as file:
            job_id = await submit(client, form(file, start_time_1="1e6"))
        async with asyncio.timeout(20):
            while not ffmpeg_processes():
                await asyncio.sleep(0.01)
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        async with asyncio.timeout(1):
            while ffmpeg_processes():
                await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while await api[STORAGE].job_ids() or list(shared.scratch_dir.glob("*/*")):
                await asyncio.sleep(0.05)


def ffmpeg_processes() -> list[psutil.Process]:
    """Returns the ffmpeg processes that cut windows and are descendants of this process."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # the process has just ended
            if "ffmpeg" in child.name() and "-frames:a" not in child.cmdline():
                found.append(child)
    return found


async def test_deleting_a_job_while_it_completes_leaves_no_files(settings: Settings) -> None:
    """A short version of `make race-test`."""
    await race_deletions(settings, RACES)
