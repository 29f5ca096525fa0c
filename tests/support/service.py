"""Runs `musiclab` commands as processes, and provides a client for the tests."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.settings import Settings
from tests.support.cache import entries
from tests.support.project import PROJECT

ENDED_WITHIN_S = 30
DONE_WITHIN_S = 120
TIDY_WITHIN_S = 5
TIMEOUT_S = 30


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment of a command that uses these settings."""
    own = {f"MUSICLAB_{name.upper()}": str(value) for name, value in settings.model_dump().items()}
    return os.environ | own | more


def command(*arguments: str | Path) -> list[str]:
    """A `musiclab` command line in this virtual environment."""
    return [str(Path(sys.executable).with_name("musiclab")), *map(str, arguments)]


def log_of(settings: Settings, name: str) -> Path:
    """The log file of a command started by `running`."""
    return settings.run_dir / f"{name}.log"


@contextmanager
def running(
    settings: Settings, *arguments: str | Path, **more: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a serving command in the repository root; yields its process once it prints Ready."""
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    # Not a pipe, which would fill up.
    with log_of(settings, str(arguments[0])).open("w+") as log:
        process = subprocess.Popen(
            command(*arguments),
            cwd=PROJECT,
            env=environment(settings, **more),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        printed: list[str] = []
        try:
            for line in process.stdout:
                printed.append(line)
                if line.startswith("Ready"):
                    break
            else:
                log.seek(0)
                output = "".join([*printed, log.read()])
                raise AssertionError(f"{arguments} exited before it was ready:\n{output}")
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=ENDED_WITHIN_S)


def torchserve_processes(settings: Settings) -> list[psutil.Process]:
    """The TorchServe process and its workers, identified by the run directory."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(settings.run_dir) in " ".join(process.info["cmdline"] or [])
    ]


def wait_torchserve_exit(settings: Settings) -> None:
    """Wait until TorchServe and its workers exit after the command that started them was killed."""
    deadline = time.monotonic() + ENDED_WITHIN_S
    while left := torchserve_processes(settings):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Service:
    """A client of a running MusicLab service."""

    settings: Settings

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.api_port}"

    def call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=TIMEOUT_S, **arguments)

    def generate(self, files: dict[str, Any], **times: str) -> requests.Response:
        """POST /api/generate; `files` maps each field to (name, content)."""
        return self.call("POST", "/api/generate", files=files, data=times)

    def finished(self, job_id: str) -> dict[str, Any]:
        """Wait until a job is completed or failed, and return its status."""
        deadline = time.monotonic() + DONE_WITHIN_S
        progress = 0
        while True:
            document: dict[str, Any] = self.call("GET", f"/api/status/{job_id}").json()
            assert document["progress"] >= progress, "progress decreased"
            progress = document["progress"]
            if document["status"] in ("completed", "failed"):
                return document
            assert time.monotonic() < deadline, f"not finished after {DONE_WITHIN_S} s: {document}"
            time.sleep(0.2)

    def assert_only_music_left(self, job_id: str) -> None:
        """Wait until a completed job has no files but its music, at most TIDY_WITHIN_S."""
        deadline = time.monotonic() + TIDY_WITHIN_S
        while (names := self._job_files(job_id)) != ["generated.wav"]:
            assert time.monotonic() < deadline, f"files after {TIDY_WITHIN_S} s: {names}"
            time.sleep(0.05)

    def kill_torchserve(self) -> None:
        """Kill TorchServe's Java process; `musiclab up` restarts TorchServe, with new keys."""
        self._torchserve("org.pytorch.serve.ModelServer").kill()

    @contextmanager
    def frozen_model(self) -> Iterator[None]:
        """Suspend the TorchServe worker, so that jobs stay running; it may be killed meanwhile."""
        worker = self._torchserve("model_service_worker")
        worker.suspend()
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.resume()

    def _torchserve(self, program: str) -> psutil.Process:
        """The single process of TorchServe whose command line contains `program`."""
        (found,) = (
            process
            for process in torchserve_processes(self.settings)
            if program in " ".join(process.cmdline())
        )
        return found

    def failed_attempts(self) -> int:
        """Failed attempts at jobs, whether or not they count towards the limit."""
        families = text_string_to_metric_families(self.call("GET", "/metrics").text)
        return sum(
            int(sample.value)
            for family in families
            for sample in family.samples
            if sample.name == "musiclab_failed_attempts_total"
        )

    def _job_files(self, job_id: str) -> list[str]:
        return sorted(path.name for path in (self.settings.cache / f"music_{job_id}").iterdir())

    def cached_jobs(self) -> list[str]:
        return entries(self.settings.cache)
