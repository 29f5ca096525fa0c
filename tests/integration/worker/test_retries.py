"""Retries: which failures are retried, how often, and which of them count as attempts."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import FormData, web

from orchestrator.api.app_keys import DATABASE, WORKER
from orchestrator.audio import cutting
from orchestrator.audio.window import Window
from orchestrator.database.schema import jobs
from orchestrator.errors import ConversionError
from orchestrator.jobs import leases
from orchestrator.serving import watcher as watcher_module
from orchestrator.serving.status import ModelStatus
from orchestrator.serving.watcher import ModelWatcher
from orchestrator.settings import Settings
from orchestrator.worker import worker as worker_module
from tests.support.jobs import finished, form, status, submit
from tests.support.quick_model import MUSIC, VERSION, Client, Predict, app_of, quick_api

PREDICTION_FAILED = {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}
NO_WORKER = {"code": 503, "type": "ServiceUnavailableException", "message": "No worker"}

NO_VERSION = {"code": 404, "type": "ModelVersionNotFoundException", "message": "No such version"}


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "RETRY_S", (0.01, 0.05))
    monkeypatch.setattr(worker_module, "POLL_S", 0.05)
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", 0.1)


def responding(*responses: tuple[int, object]) -> Predict:
    """A model that returns these responses, and then music."""
    left = list(responses)

    async def predict(request: web.Request) -> web.Response:
        await request.read()
        if left:
            code, document = left.pop(0)
            return web.json_response(document, status=code)
        return web.Response(body=MUSIC)

    return predict


async def outcome(settings: Settings, predict: Predict) -> tuple[str, int, str]:
    """Runs one job; returns its status, its attempts, and its error code or message."""
    async with quick_api(settings, predict) as client:
        done = await finished(client, await submit(client))
        return done["status"], done["attempts"], done.get("error_code") or done["message"]


async def test_a_failed_prediction_is_retried_and_counts_as_an_attempt(settings: Settings) -> None:
    failures = [(503, PREDICTION_FAILED)] * 4
    assert (await outcome(settings, responding(*failures)))[:2] == ("completed", 5)


async def test_a_job_fails_after_five_attempts(settings: Settings) -> None:
    failures = [(503, PREDICTION_FAILED)] * 5
    assert await outcome(settings, responding(*failures)) == ("failed", 5, "too_many_attempts")


async def test_requests_that_no_worker_accepts_do_not_count_as_attempts(settings: Settings) -> None:
    rejections = [(503, NO_WORKER)] * 12
    assert (await outcome(settings, responding(*rejections)))[:2] == ("completed", 1)


async def test_permanent_failures_are_not_retried(settings: Settings) -> None:
    rejection = (400, {"code": "not_finite", "detail": "track1 holds NaN"})
    assert await outcome(settings, responding(rejection)) == ("failed", 1, "not_finite")


async def test_temporary_failures_of_a_conversion_are_retried(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, failures = cutting.cut_window, [ConversionError("no memory")] * 2

    async def failing(source: Path, window: Window, target: Path) -> bytes:
        if failures:
            raise failures.pop()
        return await convert(source, window, target)

    monkeypatch.setattr(cutting, "cut_window", failing)
    done = await outcome(settings, responding())
    assert done[0] == "completed"
    assert done[1] > 1


async def test_a_job_fails_if_the_disk_stays_full(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(source: Path, window: Window, target: Path) -> bytes:
        raise ConversionError("No space left on device")

    monkeypatch.setattr(cutting, "cut_window", full)
    assert await outcome(settings, responding()) == ("failed", 5, "too_many_attempts")


async def test_the_status_explains_why_a_job_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "RETRY_S", (30.0, 30.0))
    predict = responding((503, PREDICTION_FAILED))
    async with quick_api(settings, predict) as client, asyncio.timeout(20):
        job_id = await submit(client)
        now = await status(client, job_id)
        while (now["status"], now["attempts"]) != ("queued", 1):
            await asyncio.sleep(0.02)
            now = await status(client, job_id)
        assert now["message"].startswith("Waiting for another try: ")
        assert now["progress"] == 50


@pytest.mark.parametrize(("deaths", "outcome"), [(20, "completed"), (21, "too_many_attempts")])
async def test_a_job_survives_a_limited_number_of_killed_processes(
    settings: Settings, deaths: int, outcome: str
) -> None:
    async with quick_api(settings, responding()) as client:
        app = app_of(client)
        await app[WORKER].finish(0)
        job_id = await submit(client)

        def die(connection: sa.Connection) -> None:
            connection.execute(jobs.update().values(deaths=deaths))

        await app[DATABASE].write(die)
    async with quick_api(settings, responding()) as client:
        done = await finished(client, job_id)
        assert outcome in (done["status"], done.get("error_code")), done


@pytest.fixture
def stale_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls the loaded versions continuously; each result is slightly out of date."""
    fetch = ModelWatcher._fetch_status

    async def slow(watch: ModelWatcher) -> ModelStatus:
        status = await fetch(watch)
        await asyncio.sleep(0.05)
        return status

    monkeypatch.setattr(ModelWatcher, "_fetch_status", slow)
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", 0)
    monkeypatch.setattr(leases, "PINNED_WAIT_S", 0.05)


async def wait_ready(client: Client) -> None:
    """Waits until the API reports that a model is ready."""
    async with asyncio.timeout(10):
        while (await client.get("/ready")).status != 200:
            await asyncio.sleep(0.01)


def aborting_model(loaded: list[str], then: list[str]) -> tuple[Predict, list[str]]:
    """A model that aborts its first request and then has the versions `then` loaded.

    If `then` is empty, the previous versions are loaded again half a second later.

    Returns:
        The model, and the versions of the requests that it received.
    """
    requested: list[str] = []

    async def predict(request: web.Request) -> web.StreamResponse:
        await request.read()
        version = request.match_info["version"]
        if version not in loaded:
            return web.json_response(NO_VERSION, status=404)
        requested.append(version)
        if len(requested) > 1:
            return web.Response(body=MUSIC)
        before = list(loaded)
        loaded[:] = then
        if not then:
            asyncio.get_running_loop().call_later(0.5, loaded.extend, before)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return predict, requested


async def run_with_abort(
    settings: Settings, loaded: list[str], then: list[str], data: FormData | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Runs a job whose first request is aborted; returns its status and the requested versions."""
    predict, requested = aborting_model(loaded, then)
    async with quick_api(settings, predict, loaded) as client:
        await wait_ready(client)
        return await finished(client, await submit(client, data)), requested


@pytest.mark.usefixtures("stale_polling")
async def test_a_job_whose_version_is_unloaded_uses_the_next_one_without_counting_an_attempt(
    settings: Settings,
) -> None:
    done, requested = await run_with_abort(settings, ["old"], then=["new"])
    assert requested == ["old", "new"]
    assert (done["status"], done["model_version"], done["attempts"]) == ("completed", "new", 1)


@pytest.mark.usefixtures("stale_polling")
async def test_a_crash_of_torchserve_counts_as_an_attempt(settings: Settings) -> None:
    done, requested = await run_with_abort(settings, ["old"], then=[])
    assert requested == ["old", "old"]
    assert (done["status"], done["model_version"], done["attempts"]) == ("completed", "old", 2)


@pytest.mark.usefixtures("stale_polling")
async def test_a_job_fails_if_its_named_version_is_unloaded_while_it_runs(
    settings: Settings,
) -> None:
    done, requested = await run_with_abort(
        settings, ["new", "old"], ["new"], form(model_version="old")
    )
    assert requested == ["old"]
    assert (done["status"], done["error_code"]) == ("failed", "model_not_loaded")
    assert done["model_version"] == "old"


@pytest.mark.usefixtures("stale_polling")
async def test_a_job_fails_without_a_request_if_its_named_version_is_not_loaded(
    settings: Settings,
) -> None:
    async with quick_api(settings, responding()) as client:
        app = app_of(client)
        await wait_ready(client)
        await app[WORKER].finish(0)
        job_id = await submit(client, form(model_version=VERSION))
    async with quick_api(settings, responding(), ["other"]) as client:
        done = await finished(client, job_id)
        assert (done["status"], done["error_code"]) == ("failed", "model_not_loaded")
        assert done["attempts"] == 0
        assert f"Model version {VERSION} is no longer loaded" in done["message"]
