"""The Python client: the whole way with the real model, and what it makes of a bad connection."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.api.app import create_app
from orchestrator.api.app_keys import LEASES
from orchestrator.client import MusicLabClient, Status
from orchestrator.client import client as client_module
from orchestrator.errors import ApiError, ApiUnavailableError, JobFailedError
from orchestrator.settings import Settings
from tests.support.cache import entries
from tests.support.flaky_proxy import Fault, FlakyProxy, flaky_proxy
from tests.support.service import Service
from tests.support.signals import RATE, SEGMENT, decoded, encoded, noise


@pytest.fixture
def tracks(tmp_path: Path) -> tuple[Path, Path]:
    return track(tmp_path, 31), track(tmp_path, 32)


def track(folder: Path, seed: int) -> Path:
    path = folder / f"caf\u00e9 {seed}.wav"
    path.write_bytes(encoded(noise(2 * RATE, seed)))
    return path


def test_from_submit_to_cancel(service: Service, tracks: tuple[Path, Path]) -> None:
    client = MusicLabClient(service.url + "/")
    before = service.cached_jobs()
    job_id = client.submit(*tracks, start1=0.5, end1=1.5, end2=1)
    heard: list[Status] = []
    done = client.wait(job_id, heard.append)
    assert heard[-1] == done == client.status(job_id)
    assert all(one != other for one, other in pairwise(heard)), "the same status was told twice"
    progress = [status.progress for status in heard]
    assert progress == sorted(progress)
    assert {50, 95, 100} <= set(progress)
    assert (done.status, done.attempts, done.codec, done.error_code) == (
        *("completed", 1, "starter"),
        None,
    )
    assert done.timings
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at
    assert done.expires_at == done.finished_at + timedelta(hours=service.settings.keep_hours)
    assert heard[0].expires_at is None
    assert list(client.events(job_id)) == [done]
    (model,) = client.models()
    assert (model.version, model.default, model.codec) == (done.model_version, True, "starter")

    music = decoded(client.download(job_id))
    assert len(music) == SEGMENT
    assert abs(music[2 * RATE :]).max() < 0.01, "both windows end after a second"
    client.cancel(job_id)
    assert service.cached_jobs() == before
    for ask in (client.status, client.wait, client.download, client.cancel):
        with pytest.raises(ApiError, match="Job not found") as gone:
            ask(job_id)
        assert (gone.value.status, gone.value.code) == (404, "job_not_found")


def test_a_failed_job_names_its_fault(service: Service, tracks: tuple[Path, Path]) -> None:
    client = MusicLabClient(service.url)
    job_id = client.submit(*tracks, start2=99)
    with pytest.raises(JobFailedError, match="track2") as failed:
        client.wait(job_id)
    assert failed.value.code == "window_past_end"
    client.cancel(job_id)


def test_a_download_that_breaks_off_is_asked_for_again(
    service: Service, tracks: tuple[Path, Path]
) -> None:
    direct = MusicLabClient(service.url)
    job_id = direct.submit(*tracks)
    direct.wait(job_id)

    async def scenario() -> None:
        async with flaky_proxy(service.url) as (proxy, url):
            proxy.plan = [Fault.ANSWER_CUT]
            music = await asyncio.to_thread(MusicLabClient(url).download, job_id)
            assert music == direct.download(job_id)
            assert len(proxy.seen) == 2

    asyncio.run(scenario())
    direct.cancel(job_id)


@dataclass(frozen=True)
class Stage:
    """An API without a model behind a flaky proxy, and a client of the proxy."""

    app: web.Application
    proxy: FlakyProxy
    client: MusicLabClient

    async def submit(self, tracks: tuple[Path, Path], **more: Any) -> str:
        return await asyncio.to_thread(self.client.submit, *tracks, **more)


def on_stage(
    settings: Settings, scenario: Callable[[Stage], Coroutine[Any, Any, None]], **changed: Any
) -> None:
    async def staged() -> None:
        app = create_app(settings.model_copy(update={"rate_limit": 0} | changed))
        async with (
            TestServer(app) as server,
            flaky_proxy(str(server.make_url("")).rstrip("/")) as (proxy, url),
        ):
            await scenario(Stage(app, proxy, MusicLabClient(url)))

    asyncio.run(staged())


def test_a_job_whose_answer_is_lost_is_accepted_once(
    settings: Settings, tracks: tuple[Path, Path]
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.proxy.plan = [Fault.DROPPED, Fault.ANSWER_LOST, 502, Fault.ANSWER_LOST, None]
        job_id = await stage.submit(tracks)
        assert len(stage.proxy.seen) == 5
        assert len({request.headers["Idempotency-Key"] for request in stage.proxy.seen}) == 1
        assert entries(settings.cache) == [f"music_{job_id}"]
        assert await stage.submit(tracks) != job_id

    on_stage(settings, scenario)


def test_an_idempotency_key_of_ones_own(
    settings: Settings, tracks: tuple[Path, Path], tmp_path: Path
) -> None:
    async def scenario(stage: Stage) -> None:
        job_id = await stage.submit(tracks, idempotency_key="one")
        assert await stage.submit(tracks, idempotency_key="one") == job_id
        with pytest.raises(ApiError) as reused:
            await stage.submit((tracks[0], track(tmp_path, 33)), idempotency_key="one")
        assert (reused.value.status, reused.value.code) == (409, "idempotency_key_reused")

    on_stage(settings, scenario)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_the_service_says_when_to_come_again(
    settings: Settings, tracks: tuple[Path, Path], status: int
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.proxy.plan, stage.proxy.retry_after = [status], "1"
        started = time.monotonic()
        await stage.submit(tracks)
        assert 1 <= time.monotonic() - started < 9
        assert len(stage.proxy.seen) == 2

    on_stage(settings, scenario)


@pytest.mark.parametrize("status", [400, 404, 413, 500, 507])
def test_what_will_not_pass_is_not_tried_again(
    settings: Settings, tracks: tuple[Path, Path], status: int
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.proxy.plan = [status]
        with pytest.raises(ApiError, match=f"answered {status}") as refused:
            await stage.submit(tracks)
        assert (refused.value.status, refused.value.code) == (status, None)
        assert len(stage.proxy.seen) == 1

    on_stage(settings, scenario)


def test_a_request_at_fault_is_named(settings: Settings, tracks: tuple[Path, Path]) -> None:
    async def scenario(stage: Stage) -> None:
        for wrong, code, named in (
            ({"start1": 3, "end1": 2}, "invalid_window", "end_time_1 is 2 s"),
            ({"end2": 0}, "invalid_window", "end_time_2 is 0 s"),
            ({"model_version": "none"}, "model_not_loaded", "'none'"),
        ):
            with pytest.raises(ApiError, match=named) as refused:
                await stage.submit(tracks, **wrong)
            assert (refused.value.status, refused.value.code) == (400, code)

    on_stage(settings, scenario)


def test_an_api_key(settings: Settings, tracks: tuple[Path, Path]) -> None:
    async def scenario(stage: Stage) -> None:
        with pytest.raises(ApiError) as refused:
            await stage.submit(tracks)
        assert (refused.value.status, refused.value.code) == (401, "unauthorized")
        client = MusicLabClient(stage.client.url, "secret")
        job_id = await asyncio.to_thread(client.submit, *tracks)
        assert await asyncio.to_thread(client.models) == []
        await asyncio.to_thread(client.cancel, job_id)

    on_stage(settings, scenario, api_keys="other,secret")


def test_patience_ends(settings: Settings) -> None:
    async def scenario(stage: Stage) -> None:
        client = MusicLabClient(stage.client.url, patience_s=1.5)
        for fault, status in ((503, 503), (Fault.DROPPED, None)):
            stage.proxy.plan = [fault] * 100
            stage.proxy.seen.clear()
            started = time.monotonic()
            with pytest.raises(ApiUnavailableError) as ended:
                await asyncio.to_thread(client.models)
            assert time.monotonic() - started < 3.5
            assert (ended.value.status, ended.value.code) == (status, None)
            assert 2 <= len(stage.proxy.seen) < 50

        stage.proxy.retry_after = "60"
        stage.proxy.plan = [503, None]
        with pytest.raises(ApiUnavailableError) as ended:
            await asyncio.to_thread(client.models)
        assert ended.value.retry_after_s == 60
        assert stage.proxy.plan == [None], "it came again, though its patience would have ended"

    on_stage(settings, scenario)


def test_what_is_not_musiclab_is_named(settings: Settings) -> None:
    async def scenario(stage: Stage) -> None:
        stage.proxy.plan = [Fault.ANSWER_EMPTY]
        with pytest.raises(ApiError, match="is not MusicLab's"):
            await asyncio.to_thread(stage.client.models)

    on_stage(settings, scenario)


def test_cancelling_again_after_a_lost_answer_is_no_error(
    settings: Settings, tracks: tuple[Path, Path]
) -> None:
    async def scenario(stage: Stage) -> None:
        job_id = await stage.submit(tracks)
        stage.proxy.plan = [Fault.ANSWER_LOST]
        await asyncio.to_thread(stage.client.cancel, job_id)
        assert entries(settings.cache) == []

    on_stage(settings, scenario)


STEPS = [(10, "Converting"), (30, "Extracting"), (50, "Generating"), (95, "Saving")]


async def work_off(stage: Stage, pause_s: float) -> None:
    """All that a worker tells of one job."""
    leases = stage.app[LEASES]
    job = await leases.claim()
    assert job is not None
    for progress, message in STEPS:
        await leases.advance(job, progress, message)
        await asyncio.sleep(pause_s)
    await leases.complete(job, 1, {}, 1.0)


async def waited(stage: Stage, job_id: str, pause_s: float) -> list[tuple[str, int]]:
    """What on_change is told, but for places and times, of a job that is worked off meanwhile."""
    heard: list[Status] = []
    waiting = asyncio.create_task(asyncio.to_thread(stage.client.wait, job_id, heard.append))
    while not heard:
        assert not waiting.done(), "wait ended before it told anything"
        await asyncio.sleep(0.05)
    await work_off(stage, pause_s)
    await waiting
    return [told for told, _ in groupby((status.status, status.progress) for status in heard)]


def test_a_stream_that_is_cut_goes_on_where_it_was(
    settings: Settings, tracks: tuple[Path, Path]
) -> None:
    async def scenario(stage: Stage) -> None:
        job_id = await stage.submit(tracks)
        stage.proxy.seen.clear()
        cut = Fault.ANSWER_CUT
        stage.proxy.plan = [cut, Fault.DROPPED, 503, Fault.ANSWER_EMPTY, cut, cut]
        assert await waited(stage, job_id, 0.0) == [
            ("queued", 0),
            ("running", 0),
            *(("running", progress) for progress, _ in STEPS),
            ("completed", 100),
        ]
        assert {request.path for request in stage.proxy.seen} == {f"/api/events/{job_id}"}
        ids = [int(request.headers["Last-Event-ID"]) for request in stage.proxy.seen]
        assert ids[:2] == [0, 1]
        assert ids == sorted(ids)

    on_stage(settings, scenario)


@pytest.mark.parametrize(
    "fault", [404, 503, Fault.DROPPED, Fault.ANSWER_EMPTY, Fault.ANSWER_HELD], ids=str
)
def test_without_a_stream_it_polls(
    settings: Settings,
    tracks: tuple[Path, Path],
    fault: Fault | int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "SILENCE_S", 0.5)
    monkeypatch.setattr(client_module, "STREAM_PATIENCE_S", 1.0)
    monkeypatch.setattr(client_module, "POLL_S", 0.1)

    async def scenario(stage: Stage) -> None:
        job_id = await stage.submit(tracks)
        stage.proxy.streams = fault
        heard = await waited(stage, job_id, 0.5)
        assert [progress for _, progress in heard] == sorted(progress for _, progress in heard)
        assert heard[0] == ("queued", 0)
        assert "running" in [status for status, _ in heard]
        assert heard[-1] == ("completed", 100)

    on_stage(settings, scenario)


@pytest.mark.parametrize("fault", [None, 404], ids=["stream", "polling"])
def test_waiting_ends_in_time(
    settings: Settings, tracks: tuple[Path, Path], fault: int | None
) -> None:
    async def scenario(stage: Stage) -> None:
        job_id = await stage.submit(tracks)
        stage.proxy.streams = fault
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=job_id):
            await asyncio.to_thread(stage.client.wait, job_id, timeout_s=1)
        assert 1 <= time.monotonic() - started < 3

    on_stage(settings, scenario)


def test_a_job_that_is_removed_ends_its_stream(
    settings: Settings, tracks: tuple[Path, Path]
) -> None:
    async def scenario(stage: Stage) -> None:
        job_id = await stage.submit(tracks)
        events = stage.client.events(job_id)
        first = await asyncio.to_thread(next, events)
        assert (first.status, first.queue_position) == ("queued", 1)
        await asyncio.to_thread(stage.client.cancel, job_id)
        with pytest.raises(ApiError) as gone:
            await asyncio.to_thread(next, events)
        assert (gone.value.status, gone.value.code) == (404, "job_not_found")

    on_stage(settings, scenario)
