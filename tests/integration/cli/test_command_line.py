"""`musiclab up`, `generate` and `doctor`, run as commands."""

import asyncio
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from orchestrator.api.app import create_app
from orchestrator.settings import Settings
from tests.support.cache import entries
from tests.support.flaky_proxy import flaky_proxy
from tests.support.service import (
    ENDED_WITHIN_S,
    Service,
    command,
    environment,
    running,
    torchserve_processes,
)
from tests.support.signals import RATE, SEGMENT, decoded, encoded, noise


@pytest.fixture
def tracks(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"track {number}.flac" for number in (1, 2)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(noise(20 * RATE, number), "FLAC"))
    return paths


def musiclab(settings: Settings, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(settings), capture_output=True, text=True
    )


def test_generate_writes_the_music_and_deletes_its_job(
    service: Service, tracks: list[Path], tmp_path: Path
) -> None:
    before = service.cached_jobs()
    output = tmp_path / "out.wav"
    done = musiclab(
        service.settings,
        *("generate", tracks[0], tracks[1], "--start1", "1.5", "--start2", "3", "-o", output),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(output)
    assert len(decoded(output.read_bytes())) == SEGMENT
    assert service.cached_jobs() == before


def test_generate_prints_the_error_of_the_service(
    service: Service, tracks: list[Path], tmp_path: Path
) -> None:
    before = service.cached_jobs()
    late = musiclab(service.settings, "generate", *tracks, "--start1", "99")
    assert late.returncode == 1
    assert "track1" in late.stderr
    assert "20" in late.stderr
    notes = tmp_path / "notes.txt"
    notes.write_text("no music")
    rejected = musiclab(service.settings, "generate", tracks[0], notes)
    assert rejected.returncode == 1
    assert "track2 is named 'notes.txt'" in rejected.stderr
    assert "Traceback" not in late.stderr + rejected.stderr
    assert service.cached_jobs() == before


def test_generate_checks_the_output_path_first(
    service: Service, tracks: list[Path], tmp_path: Path
) -> None:
    rejected = musiclab(service.settings, "generate", *tracks, "-o", tmp_path / "no" / "out.wav")
    assert rejected.returncode == 1
    assert f"the directory {tmp_path / 'no'} does not exist" in rejected.stderr


def test_generate_without_a_service_explains_how_to_start_one(
    settings: Settings, tracks: list[Path]
) -> None:
    started = time.monotonic()
    rejected = musiclab(settings, "generate", *tracks)
    assert rejected.returncode == 1
    assert "musiclab up" in rejected.stderr
    assert time.monotonic() - started < 20, "the command waited for a service that is not running"


async def test_ctrl_c_cancels_the_job_of_generate(settings: Settings, tracks: list[Path]) -> None:
    app = create_app(settings.model_copy(update={"api_keys": "secret"}))
    async with (
        TestServer(app) as server,
        flaky_proxy(str(server.make_url("")).rstrip("/")) as (proxy, url),
    ):
        process = await asyncio.create_subprocess_exec(
            *command("generate", *tracks, "--url", url),
            env=environment(settings, MUSICLAB_API_KEY="secret"),
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(ENDED_WITHIN_S):
            while not proxy.seen or not proxy.seen[-1].path.startswith("/api/events/"):
                await asyncio.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
        assert process.returncode == 130
        assert b"Traceback" not in errors
        assert entries(settings.cache) == []


def test_generate_without_a_file_is_a_usage_error(settings: Settings, tmp_path: Path) -> None:
    assert musiclab(settings, "generate", tmp_path / "a", tmp_path / "b").returncode == 2


def test_doctor_finds_everything_required(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("the page")
    found = musiclab(settings.model_copy(update={"page": tmp_path}), "doctor")
    assert found.returncode == 0, found.stdout
    for name in ("Python", "torch", "Java", "ffmpeg", "musiclab codec fetch", str(tmp_path)):
        assert name in found.stdout
    assert "missing" not in found.stdout


def test_up_stops_cleanly_and_resumes_its_jobs(packed: Settings, tracks: list[Path]) -> None:
    brief = packed.model_copy(update={"grace_s": 1.0, "reuse_results": False})
    service = Service(brief)
    contents = [(path.name, path.read_bytes()) for path in tracks]
    files = dict(zip(("track1", "track2"), contents, strict=True))
    with running(brief, "up") as first:
        job_id = service.generate(files).json()["job_id"]
        first.send_signal(signal.SIGINT)
        assert first.wait(ENDED_WITHIN_S) == 0
        assert torchserve_processes(brief) == []

    # SIGTERM returns jobs to the queue within the grace period.
    with running(brief, "up") as second:
        assert service.finished(job_id)["status"] == "completed"
        assert service.call("DELETE", f"/api/cleanup/{job_id}").status_code == 200
        jobs = [
            service.generate(files, start_time=str(number)).json()["job_id"] for number in range(4)
        ]
        deadline = time.monotonic() + 60
        while service.call("GET", f"/api/status/{jobs[0]}").json()["progress"] < 50:
            assert time.monotonic() < deadline, "the first job did not start within 60 s"
            time.sleep(0.05)
        began = time.monotonic()
        second.send_signal(signal.SIGTERM)
        assert second.wait(ENDED_WITHIN_S) == 0
        assert time.monotonic() - began < brief.grace_s + 10
        assert torchserve_processes(brief) == []

    # SIGTERM during a restart of TorchServe leaves no process either.
    with running(brief, "up") as third:
        for job_id in jobs:
            done = service.finished(job_id)
            assert (done["status"], done["attempts"]) == ("completed", 1)
            assert service.call("DELETE", f"/api/cleanup/{job_id}").status_code == 200
        assert service.cached_jobs() == []
        service.kill_torchserve()
        time.sleep(0.8)  # TorchServe is being restarted
        third.send_signal(signal.SIGTERM)
        assert third.wait(ENDED_WITHIN_S) == 0
        assert torchserve_processes(brief) == []


def test_up_names_a_port_in_use(packed: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", packed.api_port))
        taken.listen()
        rejected = musiclab(packed, "up")
    assert rejected.returncode == 1
    assert f":{packed.api_port}" in rejected.stderr
    assert "MUSICLAB_API_PORT" in rejected.stderr
    assert torchserve_processes(packed) == []
