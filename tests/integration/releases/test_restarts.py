"""TorchServe ends while a command runs: it is restarted, the API goes on, and nothing is left."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.archives.archive import archive_path
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from orchestrator.settings import Settings
from tests.support.service import (
    ENDED_WITHIN_S,
    Service,
    assert_all_end,
    log_of,
    running,
    torchserve_processes,
)

WITHIN_S = 60
HELD_S = 3.0
ANSWERED_WITHIN_S = 15  # where the event loop is blocked, there is no answer at all
RESTARTS = "TorchServe ended; it is started again"


@pytest.fixture
def service(packed: Settings, starter_archive: Path, tmp_path: Path) -> Service:
    """One with a model store of its own, not started yet."""
    store = tmp_path / "own_store"
    store.mkdir()
    shutil.copy(starter_archive, store)
    return Service(packed.model_copy(update={"model_store": store}))


@contextmanager
def held_restart(service: Service) -> Iterator[Path]:
    """TorchServe is killed, and not restarted until `let_go`, or the end of this.

    The archive to restart it with is a named pipe: to open it for reading takes until somebody
    opens it for writing.
    """
    pipe = archive_path(service.settings.model_store, "pipe")
    os.mkfifo(pipe)
    DesiredStateFile(service.settings).write(DesiredState("pipe"))
    service.kill_torchserve()
    log = log_of(service.settings, "up")
    deadline = time.monotonic() + WITHIN_S
    while RESTARTS not in log.read_text():
        assert time.monotonic() < deadline, "the end of TorchServe was not noticed"
        time.sleep(0.1)
    try:
        yield pipe
    finally:
        with suppress(OSError):
            let_go(pipe)


def assert_answers(service: Service) -> None:
    """The event loop turns: the API answers for some seconds, and quickly."""
    until = time.monotonic() + HELD_S
    while time.monotonic() < until:
        began = time.monotonic()
        assert service.call("GET", "/health").status_code == 200
        assert time.monotonic() - began < ANSWERED_WITHIN_S
        time.sleep(0.05)


def let_go(pipe: Path) -> None:
    """Let the restart find an archive without content; fails where no restart waits for it."""
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def wait_healthy(service: Service) -> None:
    deadline = time.monotonic() + WITHIN_S
    while service.call("GET", "/health").json()["status"] != "healthy":
        assert time.monotonic() < deadline, "TorchServe was not started again"
        time.sleep(0.2)


def server_processes(settings: Settings) -> list[psutil.Process]:
    """Those of TorchServe itself, without those of its workers."""
    return [
        process
        for process in torchserve_processes(settings)
        if "org.pytorch.serve.ModelServer" in process.cmdline()
    ]


def test_the_api_answers_during_a_restart_after_which_torchserve_stays(service: Service) -> None:
    with running(service.settings, "up") as process:
        with held_restart(service) as pipe:
            assert_answers(service)
            assert torchserve_processes(service.settings) == []
            assert service.call("GET", "/health").json()["status"] != "healthy"
            let_go(pipe)
        wait_healthy(service)
        assert "what served before serves again" in log_of(service.settings, "up").read_text()
        restarted = server_processes(service.settings)
        time.sleep(HELD_S)  # Linux would have ended it with the thread that started it
        assert server_processes(service.settings) == restarted != []
        process.kill()
        assert_all_end(service.settings)


def test_stopping_does_not_wait_for_a_restart_that_hangs(service: Service) -> None:
    with running(service.settings, "up") as process, held_restart(service):
        assert_answers(service)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(ENDED_WITHIN_S) == 0
        assert torchserve_processes(service.settings) == []


def test_serve_model_restarts_torchserve_too_until_ctrl_c(settings: Settings) -> None:
    with running(settings, "serve-model") as process:
        assert len(torchserve_processes(settings)) >= 2
        Service(settings).kill_torchserve()
        deadline = time.monotonic() + WITHIN_S
        log = log_of(settings, "serve-model")
        while RESTARTS not in log.read_text() or not server_processes(settings):
            assert time.monotonic() < deadline, "TorchServe was not started again"
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(ENDED_WITHIN_S) == 0
        assert torchserve_processes(settings) == []
