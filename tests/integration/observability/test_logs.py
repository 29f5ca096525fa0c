"""The logs: jobs are identified by id, requests and errors are recorded."""

import asyncio
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from yarl import URL

from orchestrator.serving import watcher as watcher_module
from orchestrator.settings import Settings
from orchestrator.worker import worker
from tests.support.jobs import finished, submit
from tests.support.log_lines import Line, is_of, lines_of, log_lines
from tests.support.quick_model import MUSIC, VERSION, quick_api
from tests.support.service import Service, command, environment, log_of
from tests.support.signals import SEGMENT, encoded, noise

SOUND = {f"track{n}": (f"{n}.wav", encoded(noise(SEGMENT, n))) for n in (1, 2)}
REQUEST_SENT = "inference request sent"


def orchestrator_lines(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["logger"].startswith("orchestrator.")]


def test_a_job_can_be_followed_through_all_logs(service: Service) -> None:
    log = log_of(service.settings, "up")
    before = len(log_lines(log))
    job_id = service.generate(SOUND).json()["job_id"]
    assert service.finished(job_id)["status"] == "completed"
    events = service.call("GET", f"/api/events/{job_id}")
    service.call("GET", f"/api/download/{job_id}")
    service.call("DELETE", f"/api/cleanup/{job_id}")

    lines = orchestrator_lines(log_lines(log)[before:])
    named = [line for line in lines if is_of(line, job_id)]
    assert [line for line in lines if "job_id" not in line] == [], "there were no other requests"
    messages = [line["event"] for line in named if line["event"] != "request"]
    assert messages == ["job claimed", REQUEST_SENT, "job completed"]
    by_worker = [line["model_version"] for line in named if line["event"] != "request"]
    assert by_worker == [None, "starter", "starter"]

    requests = [line for line in named if line["event"] == "request"]
    versions = [line["model_version"] for line in requests]
    assert versions == sorted(versions, key=bool), "a later line lacks the known version"
    assert versions[-3:] == ["starter"] * 3
    assert events.status_code == 200
    counted = Counter((r["method"], r["path"], r["status"], r["level"]) for r in requests)
    assert counted.pop(("GET", "/api/status/{job_id}", 200, "debug")) > 1
    assert counted == {
        ("POST", "/api/generate", 202, "info"): 1,
        ("GET", "/api/events/{job_id}", 200, "info"): 1,
        ("GET", "/api/download/{job_id}", 200, "info"): 1,
        ("DELETE", "/api/cleanup/{job_id}", 200, "info"): 1,
    }
    assert {line["client"] for line in requests} == {"127.0.0.1"}
    assert all(line["seconds"] >= 0 for line in requests)

    # TorchServe's own log, and the lines that it forwards to the log of the process.
    for file in (service.settings.model_server_dir / "logs" / "model_log.log", log):
        responses = [line for line in lines_of(file, job_id) if line["event"] == "request answered"]
        assert [line["model_version"] for line in responses] == ["starter"]


def test_torchserve_lines_are_forwarded_to_the_log_without_access_logs(
    service: Service,
) -> None:
    loggers = Counter(line["logger"] for line in log_lines(log_of(service.settings, "up")))
    assert loggers["MODEL_LOG"] > 0
    assert loggers["org.pytorch.serve.ModelServer"] > 0
    assert "ACCESS_LOG" not in loggers
    logs = service.settings.model_server_dir / "logs"
    assert len(log_lines(logs / "access_log.log")) > 0
    assert len(log_lines(logs / "ts_log.log")) > 0


async def test_lines_of_concurrent_jobs_carry_the_right_ids(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_S", (0.01, 0.05))
    monkeypatch.setattr(watcher_module, "WATCH_INTERVAL_S", 0.1)
    failed: set[str] = set()

    async def fail_once(request: web.Request) -> web.Response:
        await request.read()
        job_id = request.headers["X-Job-Id"]
        if job_id in failed:
            return web.Response(body=MUSIC)
        failed.add(job_id)
        return web.json_response({"message": "Prediction failed"}, status=503)

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with quick_api(settings, fail_once) as client:
            job_ids = await asyncio.gather(*(submit(client) for _ in range(4)))
            for job_id in job_ids:
                await finished(client, job_id)
    attempt = [("job claimed", None), (REQUEST_SENT, VERSION)]
    for job_id in job_ids:
        assert [
            (line["event"], line["model_version"])
            for line in lines
            if line.get("job_id") == job_id and line["event"] != "request"
        ] == [*attempt, ("attempt failed", VERSION), *attempt, ("job completed", VERSION)]


async def test_unknown_paths_and_redirects_are_logged(settings: Settings) -> None:
    with structlog.testing.capture_logs() as lines:
        async with quick_api(settings) as client:
            await client.get(URL("/no%0Awhere", encoded=True))
            await client.get("/docs", allow_redirects=False)
    messages = [(line["path"], line["status"]) for line in lines if line["event"] == "request"]
    assert messages == [("/no%0Awhere", 404), ("/docs", 302)]


def test_the_final_error_of_a_process_is_logged(settings: Settings, tmp_path: Path) -> None:
    def rejected(log_format: str) -> Path:
        chosen = settings.model_copy(update={"log_format": log_format})
        file = tmp_path / log_format
        with file.open("w") as errors:
            done = subprocess.run(command("api"), env=environment(chosen), stderr=errors)
        assert done.returncode == 1
        return file

    (line,) = log_lines(rejected("json"))
    assert line["level"] == "critical"
    assert "MUSICLAB_DATABASE_URL" in line["event"]
    assert rejected("console").read_text().startswith("error: ")
