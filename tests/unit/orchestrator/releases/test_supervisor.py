"""The supervisor records the loaded versions and restores them after TorchServe exits."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from orchestrator.archives.archive import archive_path
from orchestrator.errors import ArchiveError, ModelServerError
from orchestrator.releases import supervisor as supervisor_module
from orchestrator.releases.desired_state import FILE, DesiredState, DesiredStateFile
from orchestrator.releases.supervisor import RETRY_INTERVAL_S, Supervisor
from orchestrator.serving.process import TorchServe
from orchestrator.serving.status import LoadedVersion
from orchestrator.settings import Settings
from tests.support.quick_torchserve import small_archive

SETTLE_S = 3.0
WITHIN_S = 10


class Clock:
    """The supervisor's clock, which advances only when a test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class ExitedServer(TorchServe):
    """A server whose TorchServe has exited and is not really restarted."""

    started = 0
    stopped = 0

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.stopped += 1
        super().stop()

    @property
    def served(self) -> list[str]:
        """The names of the archives that TorchServe is started with, the default first."""
        return self._names


@pytest.fixture
def store(settings: Settings) -> Path:
    settings.model_server_dir.mkdir(parents=True)
    for version in ("a", "b", "c"):
        small_archive(settings.model_store, version)
    return settings.model_store


@pytest.fixture
def server(settings: Settings, store: Path) -> ExitedServer:
    """A server with "a" as its default version."""
    return ExitedServer(settings, archive_path(store, "a"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor_module, "time", clock)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", SETTLE_S)
    return clock


@pytest.fixture
def record(server: ExitedServer, clock: Clock) -> Callable[..., DesiredState | None]:
    """A function that records these versions after a delay and returns the stored state."""
    supervisor = Supervisor(server)

    def at(after_s: float, *versions: LoadedVersion) -> DesiredState | None:
        clock.now += after_s
        supervisor.record_loaded_versions(versions)
        return DesiredStateFile(server.settings).read()

    return at


Record = Callable[..., DesiredState | None]


def default(version: str, ready: int = 1) -> LoadedVersion:
    return LoadedVersion(version, default=True, workers=1, ready=ready)


def additional(version: str, ready: int = 1) -> LoadedVersion:
    return LoadedVersion(version, default=False, workers=1, ready=ready)


def write(server: TorchServe, wanted: DesiredState) -> None:
    DesiredStateFile(server.settings).write(wanted)


def test_the_packed_version_is_not_recorded(record: Record) -> None:
    assert record(0, default("a")) is None
    assert record(SETTLE_S, default("a")) is None


def test_a_change_is_recorded_once_it_settles(record: Record) -> None:
    changed = additional("a"), default("b")
    assert record(0, *changed) is None
    assert record(SETTLE_S - 0.1, *changed) is None
    assert record(0, default("b")) is None, "it changed again and has to settle again"
    assert record(SETTLE_S - 0.1, default("b")) is None
    assert record(0.1, default("b")) == DesiredState("b", previous=("a",))
    assert record(0, *changed) == DesiredState("b", previous=("a",))
    assert record(SETTLE_S, *changed) == DesiredState("b", ("a",), ("a",))


def test_nothing_is_recorded_during_a_deployment(record: Record, server: ExitedServer) -> None:
    record(0, default("b"))
    with DesiredStateFile(server.settings).exclusive():
        assert record(SETTLE_S, default("b")) is None
    assert record(0.1, default("b")) is None, (
        "it may have been observed before the deployment ended"
    )
    assert record(SETTLE_S, default("b")) == DesiredState("b", previous=("a",))


def test_versions_observed_before_a_deployment_ends_are_not_recorded(
    record: Record, server: ExitedServer
) -> None:
    draining = additional("a"), default("b")
    record(0, *draining)
    with DesiredStateFile(server.settings).exclusive():
        record(SETTLE_S - 0.5, *draining)
        write(server, DesiredState("b", previous=("a",)))
    assert record(0.5, *draining) == DesiredState("b", previous=("a",))
    for after_s in (0.5, SETTLE_S):
        assert record(after_s, default("b")) == DesiredState("b", previous=("a",))


def test_versions_that_are_not_ready_are_not_recorded(record: Record) -> None:
    for after_s in (0, SETTLE_S):
        assert record(after_s, default("a"), additional("b", ready=0)) is None
    for after_s in (0, SETTLE_S):
        assert record(after_s, additional("a"), default("b", ready=0)) is None
    for after_s in (0, SETTLE_S):
        assert record(after_s) is None


def test_an_additional_version_that_is_restarting_is_kept(
    record: Record, server: ExitedServer
) -> None:
    recorded = DesiredState("a", ("b",))
    write(server, recorded)
    for after_s in (0, SETTLE_S):
        assert record(after_s, default("a"), additional("b", ready=0)) == recorded
    record(0, default("a"), additional("c"), additional("b", ready=0))
    extended = record(SETTLE_S, default("a"), additional("c"), additional("b", ready=0))
    assert extended == DesiredState("a", ("b", "c"))


def test_unloading_an_additional_version_is_recorded(record: Record, server: ExitedServer) -> None:
    write(server, DesiredState("a", ("b", "c")))
    record(0, default("a"), additional("b"), additional("c"))
    record(SETTLE_S, default("a"), additional("b"), additional("c"))
    record(0, default("a"), additional("c"))
    assert record(SETTLE_S, default("a"), additional("c")) == DesiredState("a", ("c",))


def test_a_failed_write_is_retried(
    record: Record, server: ExitedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disk_full(versions: DesiredStateFile, content: DesiredState) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(DesiredStateFile, "write", raise_disk_full)
        for after_s in (0, SETTLE_S):
            assert record(after_s, default("b")) is None
    assert record(RETRY_INTERVAL_S - 0.1, default("b")) is None
    assert record(0.1, default("b")) == DesiredState("b", previous=("a",))
    (server.settings.model_server_dir / FILE).write_text("no json")
    for after_s in (0, SETTLE_S):
        with pytest.raises(ArchiveError):  # raised by the read in `record`, not by the supervisor
            record(after_s, default("c"))


def test_the_desired_versions_are_restored(server: ExitedServer) -> None:
    write(server, DesiredState("b", ("a", "c")))
    Supervisor(server).restart_if_exited()
    assert server.served == ["musiclab-b.mar", "musiclab-a.mar", "musiclab-c.mar"]
    assert (server.manifest["version"], server.started) == ("b", 1)


def test_a_damaged_additional_version_is_omitted(server: ExitedServer, store: Path) -> None:
    write(server, DesiredState("b", ("a", "c")))
    archive_path(store, "a").write_text("text")
    Supervisor(server).restart_if_exited()
    assert server.served == ["musiclab-b.mar", "musiclab-c.mar"]


@pytest.mark.parametrize("fault", ["unreadable", "damaged", "missing"])
def test_the_last_versions_are_restored_if_the_desired_one_cannot_be(
    server: ExitedServer, store: Path, fault: str
) -> None:
    server.set_archives(archive_path(store, "a"), archive_path(store, "c"))
    write(server, DesiredState("b"))
    if fault == "unreadable":
        (server.settings.model_server_dir / FILE).write_text("no json")
    elif fault == "damaged":
        archive_path(store, "b").write_text("text")
    else:
        archive_path(store, "b").unlink()
    Supervisor(server).restart_if_exited()
    assert server.served == ["musiclab-a.mar", "musiclab-c.mar"]
    assert (server.manifest["version"], server.started) == ("a", 1)
    assert server.archive == archive_path(store, "a").resolve()


def test_a_running_torchserve_is_not_restarted(
    server: ExitedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "is_running", lambda: True)
    write(server, DesiredState("b"))
    Supervisor(server).restart_if_exited()
    assert (server.served, server.started) == (["musiclab-a.mar"], 0)


def test_stopping_does_not_wait_for_archives_to_be_read(
    server: ExitedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read hangs, as on a faulty disk; TorchServe is not started when it continues."""
    reading, go_on = Event(), Event()

    def read(versions: DesiredStateFile, wanted: DesiredState | None) -> list[Path]:
        reading.set()
        assert go_on.wait(WITHIN_S)
        return []

    monkeypatch.setattr(DesiredStateFile, "archives", read)
    supervisor = Supervisor(server)
    restart = Thread(target=supervisor.restart_if_exited)
    restart.start()
    assert reading.wait(WITHIN_S)
    assert server.stopped == 1, "leftovers of TorchServe are cleaned up first"
    supervisor.stop()
    assert server.stopped == 2
    go_on.set()
    restart.join()
    assert server.started == 0


def test_stopping_waits_for_a_start_in_progress(
    server: ExitedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, go_on = Event(), Event()

    def start() -> None:
        starting.set()
        assert go_on.wait(WITHIN_S)
        server.started += 1

    def stop() -> None:
        assert server.started == len(stops), "stopped while it was being started"
        stops.append(server.started)

    stops: list[int] = []
    monkeypatch.setattr(server, "start", start)
    monkeypatch.setattr(server, "stop", stop)
    supervisor = Supervisor(server)
    restart = Thread(target=supervisor.restart_if_exited)
    restart.start()
    assert starting.wait(WITHIN_S)
    stopping = Thread(target=supervisor.stop)
    stopping.start()
    stopping.join(0.1)
    assert stopping.is_alive()
    go_on.set()
    for thread in (restart, stopping):
        thread.join()
    assert stops == [0, 1]


def test_a_stopped_supervisor_returns_and_starts_nothing(server: ExitedServer) -> None:
    supervisor = Supervisor(server)
    supervisor.stop()
    supervisor.run(list)
    supervisor.restart_if_exited()
    assert server.started == 0


def test_a_failed_restart_ends_the_supervisor(
    server: ExitedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        raise ModelServerError("port 8080 is taken")

    monkeypatch.setattr(supervisor_module, "CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr(server, "start", start)
    supervisor = Supervisor(server)
    with pytest.raises(ModelServerError, match="8080 is taken"):
        supervisor.run(list)
    supervisor.stop()


def test_an_invalid_default_archive_is_rejected(settings: Settings, store: Path) -> None:
    archive_path(store, "a").write_text("text")
    with pytest.raises(ArchiveError, match="not a MusicLab archive"):
        TorchServe(settings, archive_path(store, "a"), archive_path(store, "b"))
