"""The Python client: a complete job with the real model, and unreliable connections."""

import asyncio
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.client import MusicLabClient, Status
from orchestrator.errors import ApiError, ApiUnavailableError, JobFailedError
from orchestrator.settings import Settings
from tests.support.cache import entries
from tests.support.flaky_proxy import Fault, flaky_proxy
from tests.support.proxied_api import ProxiedApi, proxied_api, track
from tests.support.service import Service
from tests.support.signals import RATE, SEGMENT, decoded


def test_a_job_from_submission_to_cancellation(service: Service, tracks: tuple[Path, Path]) -> None:
    client = MusicLabClient(service.url + "/")
    before = service.cached_jobs()
    job_id = client.submit(*tracks, start1=0.5, end1=1.5, end2=1)
    statuses: list[Status] = []
    done = client.wait(job_id, statuses.append)
    assert statuses[-1] == done == client.status(job_id)
    assert all(one != other for one, other in pairwise(statuses)), (
        "the same status was reported twice"
    )
    progress = [status.progress for status in statuses]
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
    assert statuses[0].expires_at is None
    assert list(client.events(job_id)) == [done]
    (model,) = client.models()
    assert (model.version, model.default, model.codec) == (done.model_version, True, "starter")

    music = decoded(client.download(job_id))
    assert len(music) == SEGMENT
    assert abs(music[2 * RATE :]).max() < 0.01, "both windows end after a second"
    client.cancel(job_id)
    assert service.cached_jobs() == before
    for call in (client.status, client.wait, client.download, client.cancel):
        with pytest.raises(ApiError, match="Job not found") as gone:
            call(job_id)
        assert (gone.value.status, gone.value.code) == (404, "job_not_found")


def test_a_failed_job_raises_its_error(service: Service, tracks: tuple[Path, Path]) -> None:
    client = MusicLabClient(service.url)
    job_id = client.submit(*tracks, start2=99)
    with pytest.raises(JobFailedError, match="track2") as failed:
        client.wait(job_id)
    assert failed.value.code == "window_past_end"
    client.cancel(job_id)


async def test_an_interrupted_download_is_retried(
    service: Service, tracks: tuple[Path, Path]
) -> None:
    direct = MusicLabClient(service.url)
    job_id = direct.submit(*tracks)
    direct.wait(job_id)
    async with flaky_proxy(service.url) as (proxy, url):
        proxy.plan = [Fault.RESPONSE_CUT]
        music = await asyncio.to_thread(MusicLabClient(url).download, job_id)
        assert music == direct.download(job_id)
        assert len(proxy.seen) == 2
    direct.cancel(job_id)


async def test_a_job_whose_response_is_lost_is_accepted_once(
    settings: Settings, proxied: ProxiedApi, tracks: tuple[Path, Path]
) -> None:
    proxied.proxy.plan = [Fault.DROPPED, Fault.RESPONSE_LOST, 502, Fault.RESPONSE_LOST, None]
    job_id = await proxied.submit(tracks)
    assert len(proxied.proxy.seen) == 5
    assert len({request.headers["Idempotency-Key"] for request in proxied.proxy.seen}) == 1
    assert entries(settings.cache) == [f"music_{job_id}"]
    assert await proxied.submit(tracks) != job_id


async def test_callers_can_choose_the_idempotency_key(
    proxied: ProxiedApi, tracks: tuple[Path, Path], tmp_path: Path
) -> None:
    job_id = await proxied.submit(tracks, idempotency_key="one")
    assert await proxied.submit(tracks, idempotency_key="one") == job_id
    with pytest.raises(ApiError) as reused:
        await proxied.submit((tracks[0], track(tmp_path, 33)), idempotency_key="one")
    assert (reused.value.status, reused.value.code) == (409, "idempotency_key_reused")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_the_client_respects_retry_after(
    proxied: ProxiedApi, tracks: tuple[Path, Path], status: int
) -> None:
    proxied.proxy.plan, proxied.proxy.retry_after = [status], "1"
    started = time.monotonic()
    await proxied.submit(tracks)
    assert 1 <= time.monotonic() - started < 9
    assert len(proxied.proxy.seen) == 2


@pytest.mark.parametrize("status", [400, 404, 413, 500, 507])
async def test_permanent_errors_are_not_retried(
    proxied: ProxiedApi, tracks: tuple[Path, Path], status: int
) -> None:
    proxied.proxy.plan = [status]
    with pytest.raises(ApiError, match=f"returned status {status}") as rejected:
        await proxied.submit(tracks)
    assert (rejected.value.status, rejected.value.code) == (status, None)
    assert len(proxied.proxy.seen) == 1


async def test_an_invalid_request_raises_its_error(
    proxied: ProxiedApi, tracks: tuple[Path, Path]
) -> None:
    for wrong, code, named in (
        ({"start1": 3, "end1": 2}, "invalid_window", "end_time_1 is 2 s"),
        ({"end2": 0}, "invalid_window", "end_time_2 is 0 s"),
        ({"model_version": "none"}, "model_not_loaded", "'none'"),
    ):
        with pytest.raises(ApiError, match=named) as rejected:
            await proxied.submit(tracks, **wrong)
        assert (rejected.value.status, rejected.value.code) == (400, code)


async def test_the_api_key_is_sent(settings: Settings, tracks: tuple[Path, Path]) -> None:
    async with proxied_api(settings, api_keys="other,secret") as proxied:
        with pytest.raises(ApiError) as rejected:
            await proxied.submit(tracks)
        assert (rejected.value.status, rejected.value.code) == (401, "unauthorized")
        client = MusicLabClient(proxied.client.url, "secret")
        job_id = await asyncio.to_thread(client.submit, *tracks)
        assert await asyncio.to_thread(client.models) == []
        await asyncio.to_thread(client.cancel, job_id)


async def test_retries_stop_when_the_patience_ends(proxied: ProxiedApi) -> None:
    client = MusicLabClient(proxied.client.url, patience_s=1.5)
    for fault, status in ((503, 503), (Fault.DROPPED, None)):
        proxied.proxy.plan = [fault] * 100
        proxied.proxy.seen.clear()
        started = time.monotonic()
        with pytest.raises(ApiUnavailableError) as ended:
            await asyncio.to_thread(client.models)
        assert time.monotonic() - started < 3.5
        assert (ended.value.status, ended.value.code) == (status, None)
        assert 2 <= len(proxied.proxy.seen) < 50

    proxied.proxy.retry_after = "60"
    proxied.proxy.plan = [503, None]
    with pytest.raises(ApiUnavailableError) as ended:
        await asyncio.to_thread(client.models)
    assert ended.value.retry_after_s == 60
    assert proxied.proxy.plan == [None], "the client retried although its patience would have ended"


async def test_a_response_that_is_not_from_musiclab_is_reported(proxied: ProxiedApi) -> None:
    proxied.proxy.plan = [Fault.RESPONSE_EMPTY]
    with pytest.raises(ApiError, match="is not a MusicLab API"):
        await asyncio.to_thread(proxied.client.models)


async def test_cancelling_again_after_a_lost_response_succeeds(
    settings: Settings, proxied: ProxiedApi, tracks: tuple[Path, Path]
) -> None:
    job_id = await proxied.submit(tracks)
    proxied.proxy.plan = [Fault.RESPONSE_LOST]
    await asyncio.to_thread(proxied.client.cancel, job_id)
    assert entries(settings.cache) == []
