"""The metrics of the orchestrator, with a model that responds immediately."""

import asyncio
from dataclasses import replace

import psutil
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.api.gauges import collect_gauges
from orchestrator.serving import watcher as watcher_module
from orchestrator.serving.status import ModelStatus
from orchestrator.settings import Settings
from orchestrator.storage.local import LocalStorage
from orchestrator.worker import worker
from tests.support.jobs import finished, form, submit, unlimited_api
from tests.support.quick_model import MUSIC, VERSION, Client, quick_api
from tests.support.signals import RATE, encoded, noise
from tests.support.tables import UPLOAD, Tables, new_id

LONGEST_S = 60


async def sample(client: Client, name: str, **labels: str) -> float | None:
    """Returns the value of the sample on /metrics with this name and these labels, or None."""
    response = await client.get("/metrics")
    assert response.status == 200, await response.text()
    values = [
        each.value
        for family in text_string_to_metric_families(await response.text())
        for each in family.samples
        if each.name == name and each.labels == labels
    ]
    assert len(values) <= 1, f"{name} has {len(values)} samples with the labels {labels}"
    return values[0] if values else None


async def model_seen(client: Client) -> None:
    while await sample(client, "musiclab_model_ready") != 1:
        await asyncio.sleep(0.05)


async def test_the_start_time_of_the_process_is_exported(settings: Settings) -> None:
    """The alert JobsGivenUp depends on it."""
    async with asyncio.timeout(LONGEST_S), quick_api(settings) as client:
        started = await sample(client, "process_start_time_seconds")
    assert started == pytest.approx(psutil.Process().create_time(), abs=2)


async def test_open_requests_and_pinned_jobs_are_exported_by_version(settings: Settings) -> None:
    """Counts an open request and a job that names the version until both have ended."""
    received, respond = asyncio.Event(), asyncio.Event()

    async def predict(request: web.Request) -> web.Response:
        await request.read()
        received.set()
        await respond.wait()
        return web.Response(body=MUSIC)

    async def usage(client: Client) -> list[float | None]:
        names = ("musiclab_inference_requests_in_flight", "musiclab_jobs_pinned")
        return [await sample(client, name, model_version=VERSION) for name in names]

    async with asyncio.timeout(LONGEST_S), quick_api(settings, predict) as client:
        await model_seen(client)
        assert await usage(client) == [None, 0]
        job_id = await submit(client, form(model_version=VERSION))
        await received.wait()
        assert await usage(client) == [1, 1]
        respond.set()
        await finished(client, job_id)
        assert await usage(client) == [0, 0]
        unpinned = await submit(client, form(start_time="0.1"))
        assert await sample(client, "musiclab_jobs_pinned", model_version=VERSION) == 0
        await finished(client, unpinned)


async def test_queue_metrics_are_exported_from_either_database(
    tables: Tables, settings: Settings
) -> None:
    async def gauges() -> dict[tuple[str, ...], float]:
        files = LocalStorage(settings.cache)
        nothing = ModelStatus(ready=False)
        seen = await collect_gauges(tables.database, files, nothing, settings)
        return {
            (each.name, *each.labels.values()): each.value
            for family in seen.collect()
            for each in family.samples
        }

    assert (await gauges())["musiclab_oldest_queued_job_age_seconds",] == 0
    await tables.submit(new_id())
    await asyncio.sleep(0.5)
    await tables.submit(new_id(), replace(UPLOAD, wanted_version="v1"))
    now = await gauges()
    assert 0.5 <= now["musiclab_oldest_queued_job_age_seconds",] < LONGEST_S
    assert now["musiclab_jobs", "queued"] == 2
    assert now["musiclab_jobs", "running"] == 0
    assert now["musiclab_jobs_pinned", "v1"] == 1
    assert now["musiclab_stored_bytes",] == 2 * UPLOAD.size
    assert now["musiclab_database_up",] == 1


async def test_outcomes_and_attempts_of_jobs_are_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_S", (0.01, 0.05))
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", 0.1)
    requests = 0

    async def predict(request: web.Request) -> web.Response:
        nonlocal requests
        await request.read()
        requests += 1
        if requests == 1:
            return web.json_response({"code": 503, "message": "Prediction failed"}, status=503)
        return web.Response(body=MUSIC)

    async with asyncio.timeout(LONGEST_S), quick_api(settings, predict) as client:
        await model_seen(client)
        await finished(client, await submit(client))
        too_late = form(encoded(noise(RATE, 3)), start_time_1="9")
        await finished(client, await submit(client, too_late))
        await submit(client)  # reuses the result of the first job
        finished_total = "musiclab_jobs_finished_total"
        for value, name, labels in (
            (1, finished_total, {"outcome": "completed", "model_version": VERSION}),
            (1, finished_total, {"outcome": "window_past_end", "model_version": "none"}),
            (1, "musiclab_failed_attempts_total", {"reason": "model_failed"}),
            (0, "musiclab_failed_attempts_total", {"reason": "files"}),
            (1, "musiclab_job_attempts_bucket", {"le": "1.0"}),
            (2, "musiclab_job_attempts_count", {}),
            (3, "musiclab_job_attempts_sum", {}),
            (3, "musiclab_jobs_accepted_total", {}),
            (1, "musiclab_results_reused_total", {}),
            (2, "musiclab_jobs", {"state": "completed"}),
        ):
            assert await sample(client, name, **labels) == value, (name, labels)


async def test_requests_are_counted_by_route_and_never_by_client_input(
    settings: Settings,
) -> None:
    async with unlimited_api(settings) as client:
        for path in ("/api/status/abc", "/api/status/def", "/nowhere", "/somewhere"):
            await client.get(path)
        await client.request("PROPFIND", "/health")
        await client.get("/docs", allow_redirects=False)
        responses = "musiclab_http_requests_total"
        for value, method, route, status in (
            (2, "GET", "/api/status/{job_id}", "404"),
            (2, "GET", "none", "404"),
            (1, "other", "none", "405"),
            (1, "GET", "/docs", "302"),
        ):
            labels = {"method": method, "route": route, "status": status}
            assert await sample(client, responses, **labels) == value, labels
        timed = "musiclab_http_request_seconds_count"
        assert await sample(client, timed, method="GET", route="/api/status/{job_id}") == 2
        # The request to /metrics is the only one.
        assert await sample(client, "musiclab_http_requests_in_flight") == 1
        assert await sample(client, "musiclab_refused_requests_total", code="not_found") == 2
