"""Waiting for a job with the Python client, by event stream or by polling."""

import asyncio
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.api.app_keys import LEASES
from orchestrator.client import client as client_module
from orchestrator.errors import ApiError
from tests.support.flaky_proxy import Fault
from tests.support.proxied_api import ProxiedApi

if TYPE_CHECKING:
    from orchestrator.client import Status

STEPS = [(10, "Converting"), (30, "Extracting"), (50, "Generating"), (95, "Saving")]


async def run_next_job(proxied: ProxiedApi, pause_s: float) -> None:
    """Reports the progress of one job and completes it, as a worker does."""
    leases = proxied.app[LEASES]
    job = await leases.claim()
    assert job is not None
    for progress, message in STEPS:
        await leases.advance(job, progress, message)
        await asyncio.sleep(pause_s)
    await leases.complete(job, 1, {}, 1.0)


async def wait_for_job(proxied: ProxiedApi, job_id: str, pause_s: float) -> list[tuple[str, int]]:
    """Returns the status and progress values that `on_change` receives while the job runs."""
    statuses: list[Status] = []
    waiting = asyncio.create_task(asyncio.to_thread(proxied.client.wait, job_id, statuses.append))
    while not statuses:
        assert not waiting.done(), "wait ended before it reported a status"
        await asyncio.sleep(0.05)
    await run_next_job(proxied, pause_s)
    await waiting
    return [
        change for change, _ in groupby((status.status, status.progress) for status in statuses)
    ]


async def test_an_interrupted_stream_is_resumed(
    proxied: ProxiedApi, tracks: tuple[Path, Path]
) -> None:
    job_id = await proxied.submit(tracks)
    proxied.proxy.seen.clear()
    cut = Fault.RESPONSE_CUT
    proxied.proxy.plan = [cut, Fault.DROPPED, 503, Fault.RESPONSE_EMPTY, cut, cut]
    assert await wait_for_job(proxied, job_id, 0.0) == [
        ("queued", 0),
        ("running", 0),
        *(("running", progress) for progress, _ in STEPS),
        ("completed", 100),
    ]
    assert {request.path for request in proxied.proxy.seen} == {f"/api/events/{job_id}"}
    ids = [int(request.headers["Last-Event-ID"]) for request in proxied.proxy.seen]
    assert ids[:2] == [0, 1]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    "fault", [404, 503, Fault.DROPPED, Fault.RESPONSE_EMPTY, Fault.RESPONSE_HELD], ids=str
)
async def test_the_client_polls_if_the_stream_fails(
    proxied: ProxiedApi,
    tracks: tuple[Path, Path],
    fault: Fault | int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "STREAM_TIMEOUT_S", 0.5)
    monkeypatch.setattr(client_module, "STREAM_RETRY_S", 1.0)
    monkeypatch.setattr(client_module, "POLL_S", 0.1)
    job_id = await proxied.submit(tracks)
    proxied.proxy.streams = fault
    statuses = await wait_for_job(proxied, job_id, 0.5)
    assert [progress for _, progress in statuses] == sorted(progress for _, progress in statuses)
    assert statuses[0] == ("queued", 0)
    assert "running" in [status for status, _ in statuses]
    assert statuses[-1] == ("completed", 100)


@pytest.mark.parametrize("fault", [None, 404], ids=["stream", "polling"])
async def test_waiting_ends_at_the_timeout(
    proxied: ProxiedApi, tracks: tuple[Path, Path], fault: int | None
) -> None:
    job_id = await proxied.submit(tracks)
    proxied.proxy.streams = fault
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=job_id):
        await asyncio.to_thread(proxied.client.wait, job_id, timeout_s=1)
    assert 1 <= time.monotonic() - started < 3


async def test_deleting_a_job_ends_its_stream(
    proxied: ProxiedApi, tracks: tuple[Path, Path]
) -> None:
    job_id = await proxied.submit(tracks)
    events = proxied.client.events(job_id)
    first = await asyncio.to_thread(next, events)
    assert (first.status, first.queue_position) == ("queued", 1)
    await asyncio.to_thread(proxied.client.cancel, job_id)
    with pytest.raises(ApiError) as gone:
        await asyncio.to_thread(next, events)
    assert (gone.value.status, gone.value.code) == (404, "job_not_found")
