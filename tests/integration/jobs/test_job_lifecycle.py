"""A job from its upload to its deletion, with a model that responds immediately."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from orchestrator.api.app_keys import STORAGE, WORKER
from orchestrator.audio import cutting
from orchestrator.audio.window import Window
from orchestrator.settings import Settings
from orchestrator.storage.base import window_name
from orchestrator.worker import worker
from tests.support.jobs import TIMEOUT_S, finished, status, submit, unlimited_api
from tests.support.quick_model import MUSIC, VERSION, app_of, quick_api

GENERATION_S = 0.5  # long enough to be visible in estimates


async def test_a_job_from_upload_to_cleanup(backend_settings: Settings) -> None:
    async with unlimited_api(backend_settings) as client:
        app = app_of(client)
        job_id = await submit(client)
        done = await finished(client, job_id)
        assert (done["status"], done["progress"], done["attempts"]) == ("completed", 100, 1)
        assert (done["model_version"], done["codec"]) == (VERSION, "starter")
        assert set(done["timings"]) == {"queued", "convert", "wait", "generate", "save"}
        assert await (await client.get(f"/api/download/{job_id}")).read() == MUSIC
        async with asyncio.timeout(5):
            while await app[STORAGE].list_names(job_id) != {"generated.wav"}:
                await asyncio.sleep(0.02)
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        assert await app[STORAGE].job_ids() == set()
        for path in ("status", "download", "events"):
            assert (await client.get(f"/api/{path}/{job_id}")).status == 404


async def test_downloads_support_ranges_and_etags(backend_settings: Settings) -> None:
    async with unlimited_api(backend_settings) as client:
        job_id = await submit(client)
        await finished(client, job_id)
        path = f"/api/download/{job_id}"
        whole = await client.get(path)
        tag = whole.headers["ETag"]
        assert whole.headers["Accept-Ranges"] == "bytes"
        for byte_range, start, stop in (("0-99", 0, 100), ("100-", 100, None), ("-50", -50, None)):
            part = await client.get(path, headers={"Range": f"bytes={byte_range}", "If-Range": tag})
            assert part.status == 206
            assert await part.read() == MUSIC[start:stop]
            assert part.headers["Content-Range"].endswith(f"/{len(MUSIC)}")
        changed = await client.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
        assert (changed.status, await changed.read()) == (200, MUSIC)
        beyond = await client.get(path, headers={"Range": f"bytes={len(MUSIC)}-"})
        assert (beyond.status, (await beyond.json())["code"]) == (416, "invalid_range")
        assert beyond.headers["Content-Range"] == f"bytes */{len(MUSIC)}"
        unchanged = await client.get(path, headers={"If-None-Match": tag})
        assert (unchanged.status, await unchanged.read()) == (304, b"")
        head = await client.head(path)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(MUSIC)))


async def test_a_later_attempt_reuses_the_converted_windows(
    backend_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, converted, received = cutting.cut_window, [], []
    tried = asyncio.Event()

    async def recording(source: Path, window: Window, target: Path) -> bytes:
        converted.append(await convert(source, window, target))
        return converted[-1]

    async def predict(request: web.Request) -> web.Response:
        form = await request.post()
        fields = [form["track1"], form["track2"]]
        received.append([field.file.read() for field in fields if isinstance(field, web.FileField)])
        if len(received) == 2:
            return web.Response(body=MUSIC)
        await tried.wait()
        return web.json_response({"code": 503, "message": "Prediction failed"}, status=503)

    monkeypatch.setattr(cutting, "cut_window", recording)
    monkeypatch.setattr(worker, "RETRY_S", (0.01, 0.05))
    async with quick_api(backend_settings, predict) as client, asyncio.timeout(30):
        app = app_of(client)
        job_id = await submit(client)
        windows = {window_name(track) for track in (1, 2)}
        while await app[STORAGE].list_names(job_id) != windows:  # until the uploads are deleted
            await asyncio.sleep(0.02)
        tried.set()
        done = await finished(client, job_id)
        assert (done["status"], done["attempts"]) == ("completed", 2)
    assert len(converted) == 2
    assert [sorted(windows) for windows in received] == 2 * [sorted(converted)]


async def test_the_remaining_time_is_estimated_from_completed_jobs(settings: Settings) -> None:
    async def slow(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(GENERATION_S)
        return web.Response(body=MUSIC)

    chosen = settings.model_copy(update={"rate_limit": 0})
    async with asyncio.timeout(TIMEOUT_S), quick_api(chosen, slow) as client:
        app = app_of(client)
        first = await submit(client)
        await finished(client, first)
        await client.delete(f"/api/cleanup/{first}")  # the estimate remains
        await app[WORKER].finish(0)
        await asyncio.sleep(1.1)  # until the cached statistics expire
        estimates = []
        for _ in range(3):
            estimates.append((await status(client, await submit(client)))["eta_seconds"])
        assert GENERATION_S <= estimates[0] < estimates[1] < estimates[2] < 60
