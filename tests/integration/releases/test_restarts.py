"""TorchServe dies while a command runs: it is restarted, and the API keeps responding."""

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
    log_of,
    running,
    torchserve_processes,
    wait_torchserve_exit,
)

WITHIN_S = 60
HELD_S = 3.0
RESPONSE_WITHIN_S = 15  # if the event loop is blocked, there is no response at all
RESTARTS = "TorchServe exited; restarting it"


@pytest.fixture
def service(packed: Settings, starter_archive: Path, tmp_path: Path) -> Service:
    """A service with its own model store, not started yet."""
    store = tmp_path / "own_store"
    store.mkdir()
    shutil.copy(starter_archive, store)
    return Service(packed.model_copy(update={"model_store": store}))


@contextmanager
def blocked_restart(service: Service) -> Iterator[Path]:
    """Kills TorchServe and blocks its restart until `release`, or until the context ends.

    The archive for the restart is a named pipe: opening it for reading blocks until it is opened
    for writing.
    """
    pipe = archive_path(service.settings.model_store, "pipe")
    os.mkfifo(pipe)
    DesiredStateFile(service.settings).write(DesiredState("pipe"))
    service.kill_torchserve()
    log = log_of(service.settings, "up")
    deadline = time.monotonic() + WITHIN_S
    while RESTARTS not in log.read_text():
        assert time.monotonic() < deadline, "the death of TorchServe was not detected"
        time.sleep(0.1)
    try:
        yield pipe
    finally:
        with suppress(OSError):
            release(pipe)


def assert_responds(service: Service) -> None:
    """Asserts that the API responds quickly for HELD_S: its event loop is not blocked."""
    until = time.monotonic() + HELD_S
    while time.monotonic() < until:
        began = time.monotonic()
        assert service.call("GET", "/health").status_code == 200
        assert time.monotonic() - began < RESPONSE_WITHIN_S
        time.sleep(0.05)


def release(pipe: Path) -> None:
    """Unblocks the restart, which reads an empty archive; raises OSError if none is blocked."""
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def wait_healthy(service: Service) -> None:
    deadline = time.monotonic() + WITHIN_S
    while service.call("GET", "/health").json()["status"] != "healthy":
        assert time.monotonic() < deadline, "TorchServe was not started again"
        time.sleep(0.2)


def server_processes(settings: Settings) -> list[psutil.Process]:
    """Returns the processes of TorchServe itself, without those of its workers."""
    return [
        process
        for process in torchserve_processes(settings)
        if "org.pytorch.serve.ModelServer" in process.cmdline()
    ]


def test_the_api_responds_during_a_restart_and_torchserve_keeps_running(service: Service) -> None:
    with running(service.settings, "up") as process:
        with blocked_restart(service) as pipe:
            assert_responds(service)
            assert torchserve_processes(service.settings) == []
            assert service.call("GET", "/health").json()["status"] != "healthy"
            release(pipe)
        wait_healthy(service)
        assert (
            "restarting with the versions of the last start"
            in log_of(service.settings, "up").read_text()
        )
        restarted = server_processes(service.settings)
        time.sleep(HELD_S)  # Linux must not kill it along with the thread that started it
        assert server_processes(service.settings) == restarted != []
        process.kill()
        wait_torchserve_exit(service.settings)


def test_stopping_does_not_wait_for_a_restart_that_hangs(service: Service) -> None:
    with running(service.settings, "up") as process, blocked_restart(service):
        assert_responds(service)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(ENDED_WITHIN_S) == 0
        assert torchserve_processes(service.settings) == []


def test_serve_model_restarts_torchserve_until_ctrl_c(settings: Settings) -> None:
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
