"""What is tried again, how often, and what counts as an attempt."""

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
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "RETRY_S", (0.01, 0.05))
    monkeypatch.setattr(worker_module, "POLL_S", 0.05)
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", 0.1)


def answering(*answers: tuple[int, object]) -> Predict:
    """A model that gives these answers, and the music after them."""
    left = list(answers)

    async def predict(request: web.Request) -> web.Response:
        await request.read()
        if left:
            code, document = left.pop(0)
            return web.json_response(document, status=code)
        return web.Response(body=MUSIC)

    return predict


async def outcome(settings: Settings, predict: Predict) -> tuple[str, int, str]:
    """Of one job: how it ends, after how many attempts, and what is said of it."""
    async with quick_api(settings, predict) as client:
        done = await finished(client, await submit(client))
        return done["status"], done["attempts"], done.get("error_code") or done["message"]


async def test_a_failed_prediction_is_repeated_and_counts(settings: Settings) -> None:
    failures = [(503, PREDICTION_FAILED)] * 4
    assert (await outcome(settings, answering(*failures)))[:2] == ("completed", 5)


async def test_after_five_attempts_the_job_fails_with_the_cause(settings: Settings) -> None:
    failures = [(503, PREDICTION_FAILED)] * 5
    assert await outcome(settings, answering(*failures)) == ("failed", 5, "too_many_attempts")


async def test_what_no_worker_took_counts_for_nothing(settings: Settings) -> None:
    refusals = [(503, NO_WORKER)] * 12
    assert (await outcome(settings, answering(*refusals)))[:2] == ("completed", 1)


async def test_what_cannot_pass_is_not_repeated(settings: Settings) -> None:
    refusal = (400, {"code": "not_finite", "detail": "track1 holds NaN"})
    assert await outcome(settings, answering(refusal)) == ("failed", 1, "not_finite")


async def test_a_conversion_that_may_pass_is_repeated(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, failures = cutting.cut_window, [ConversionError("no memory")] * 2

    async def failing(source: Path, window: Window, target: Path) -> bytes:
        if failures:
            raise failures.pop()
        return await convert(source, window, target)

    monkeypatch.setattr(cutting, "cut_window", failing)
    done = await outcome(settings, answering())
    assert done[0] == "completed"
    assert done[1] > 1


async def test_a_disk_that_stays_full_ends_the_job_with_that_cause(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(source: Path, window: Window, target: Path) -> bytes:
        raise ConversionError("No space left on device")

    monkeypatch.setattr(cutting, "cut_window", full)
    assert await outcome(settings, answering()) == ("failed", 5, "too_many_attempts")


async def test_while_it_waits_the_status_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "RETRY_S", (30.0, 30.0))
    predict = answering((503, PREDICTION_FAILED))
    async with quick_api(settings, predict) as client, asyncio.timeout(20):
        job_id = await submit(client)
        now = await status(client, job_id)
        while (now["status"], now["attempts"]) != ("queued", 1):
            await asyncio.sleep(0.02)
            now = await status(client, job_id)
        assert now["message"].startswith("Waiting for another try: ")
        assert now["progress"] == 50


@pytest.mark.parametrize(("deaths", "outcome"), [(20, "completed"), (21, "too_many_attempts")])
async def test_a_job_outlives_many_processes_but_not_any_number(
    settings: Settings, deaths: int, outcome: str
) -> None:
    async with quick_api(settings, answering()) as client:
        app = app_of(client)
        await app[WORKER].finish(0)
        job_id = await submit(client)

        def die(connection: sa.Connection) -> None:
            connection.execute(jobs.update().values(deaths=deaths))

        await app[DATABASE].write(die)
    async with quick_api(settings, answering()) as client:
        done = await finished(client, job_id)
        assert outcome in (done["status"], done.get("error_code")), done


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded is looked at all the time, and each look tells what was so a moment ago."""
    look = ModelWatcher._fetch_status

    async def slow(watch: ModelWatcher) -> ModelStatus:
        status = await look(watch)
        await asyncio.sleep(0.05)
        return status

    monkeypatch.setattr(ModelWatcher, "_fetch_status", slow)
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", 0)
    monkeypatch.setattr(leases, "STRANDED_S", 0.05)


async def looked(client: Client) -> None:
    """Wait until it is known what is loaded."""
    async with asyncio.timeout(10):
        while (await client.get("/ready")).status != 200:
            await asyncio.sleep(0.01)


def cut_off(loaded: list[str], then: list[str]) -> tuple[Predict, list[str]]:
    """A model whose first request is cut off when other versions are loaded; and which were asked.

    Where none are, they are again a moment later.
    """
    asked: list[str] = []

    async def predict(request: web.Request) -> web.StreamResponse:
        await request.read()
        version = request.match_info["version"]
        if version not in loaded:
            return web.json_response(NO_VERSION, status=404)
        asked.append(version)
        if len(asked) > 1:
            return web.Response(body=MUSIC)
        before = list(loaded)
        loaded[:] = then
        if not then:
            asyncio.get_running_loop().call_later(0.5, loaded.extend, before)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return predict, asked


async def cut_off_once(
    settings: Settings, loaded: list[str], then: list[str], data: FormData | None = None
) -> tuple[dict[str, Any], list[str]]:
    """How a job ends whose first request is cut off so, and which versions were asked."""
    predict, asked = cut_off(loaded, then)
    async with quick_api(settings, predict, loaded) as client:
        await looked(client)
        return await finished(client, await submit(client, data)), asked


@pytest.mark.usefixtures("watchful")
async def test_a_job_whose_version_vanishes_is_made_by_the_next_and_does_not_count(
    settings: Settings,
) -> None:
    done, asked = await cut_off_once(settings, ["old"], then=["new"])
    assert asked == ["old", "new"]
    assert (done["status"], done["model_version"], done["attempts"]) == ("completed", "new", 1)


@pytest.mark.usefixtures("watchful")
async def test_a_job_that_torchserve_ends_under_counts(settings: Settings) -> None:
    done, asked = await cut_off_once(settings, ["old"], then=[])
    assert asked == ["old", "old"]
    assert (done["status"], done["model_version"], done["attempts"]) == ("completed", "old", 2)


@pytest.mark.usefixtures("watchful")
async def test_a_job_whose_version_by_name_vanishes_at_work_fails(settings: Settings) -> None:
    done, asked = await cut_off_once(settings, ["new", "old"], ["new"], form(model_version="old"))
    assert asked == ["old"]
    assert (done["status"], done["error_code"]) == ("failed", "model_not_loaded")
    assert done["model_version"] == "old"


@pytest.mark.usefixtures("watchful")
async def test_a_job_whose_version_by_name_was_unloaded_fails_unasked(settings: Settings) -> None:
    async with quick_api(settings, answering()) as client:
        app = app_of(client)
        await looked(client)
        await app[WORKER].finish(0)
        job_id = await submit(client, form(model_version=VERSION))
    async with quick_api(settings, answering(), ["other"]) as client:
        done = await finished(client, job_id)
        assert (done["status"], done["error_code"]) == ("failed", "model_not_loaded")
        assert done["attempts"] == 0
        assert f"Version {VERSION} of the model is no longer loaded" in done["message"]
