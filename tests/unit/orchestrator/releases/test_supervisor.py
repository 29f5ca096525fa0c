"""What the supervisor writes down of what serves, and what it has served after TorchServe ended."""

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
    """The supervisor's time, which goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class EndedServer(TorchServe):
    """One whose TorchServe has ended, and is not started again in truth."""

    started = 0
    stopped = 0

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.stopped += 1
        super().stop()

    @property
    def served(self) -> list[str]:
        """The archives that TorchServe is started with, the default one first."""
        return self._names


@pytest.fixture
def store(settings: Settings) -> Path:
    settings.model_server_dir.mkdir(parents=True)
    for version in ("a", "b", "c"):
        small_archive(settings.model_store, version)
    return settings.model_store


@pytest.fixture
def server(settings: Settings, store: Path) -> EndedServer:
    """Serves "a"."""
    return EndedServer(settings, archive_path(store, "a"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor_module, "time", clock)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", SETTLE_S)
    return clock


@pytest.fixture
def look(server: EndedServer, clock: Clock) -> Callable[..., DesiredState | None]:
    """Looks at what serves after so many seconds; returns what is written down then."""
    supervisor = Supervisor(server)

    def at(after_s: float, *versions: LoadedVersion) -> DesiredState | None:
        clock.now += after_s
        supervisor.record_served_versions(versions)
        return DesiredStateFile(server.settings).read()

    return at


Look = Callable[..., DesiredState | None]


def default(version: str, ready: int = 1) -> LoadedVersion:
    return LoadedVersion(version, default=True, workers=1, ready=ready)


def beside(version: str, ready: int = 1) -> LoadedVersion:
    return LoadedVersion(version, default=False, workers=1, ready=ready)


def write(server: TorchServe, wanted: DesiredState) -> None:
    DesiredStateFile(server.settings).write(wanted)


def test_what_was_packed_need_not_be_noted(look: Look) -> None:
    assert look(0, default("a")) is None
    assert look(SETTLE_S, default("a")) is None


def test_what_was_changed_is_noted_once_it_stays_so(look: Look) -> None:
    changed = beside("a"), default("b")
    assert look(0, *changed) is None
    assert look(SETTLE_S - 0.1, *changed) is None
    assert look(0, default("b")) is None, "it changed again, and has to settle anew"
    assert look(SETTLE_S - 0.1, default("b")) is None
    assert look(0.1, default("b")) == DesiredState("b", previous=("a",))
    assert look(0, *changed) == DesiredState("b", previous=("a",))
    assert look(SETTLE_S, *changed) == DesiredState("b", ("a",), ("a",))


def test_nothing_is_noted_while_a_deployment_is_going_on(look: Look, server: EndedServer) -> None:
    look(0, default("b"))
    with DesiredStateFile(server.settings).exclusive():
        assert look(SETTLE_S, default("b")) is None
    assert look(0.1, default("b")) is None, "what is seen may be of before the deployment's end"
    assert look(SETTLE_S, default("b")) == DesiredState("b", previous=("a",))


def test_what_was_seen_before_the_end_of_a_deployment_is_not_noted(
    look: Look, server: EndedServer
) -> None:
    draining = beside("a"), default("b")
    look(0, *draining)
    with DesiredStateFile(server.settings).exclusive():
        look(SETTLE_S - 0.5, *draining)
        write(server, DesiredState("b", previous=("a",)))
    assert look(0.5, *draining) == DesiredState("b", previous=("a",))
    for after_s in (0.5, SETTLE_S):
        assert look(after_s, default("b")) == DesiredState("b", previous=("a",))


def test_what_is_not_ready_is_not_noted(look: Look) -> None:
    for after_s in (0, SETTLE_S):
        assert look(after_s, default("a"), beside("b", ready=0)) is None
    for after_s in (0, SETTLE_S):
        assert look(after_s, beside("a"), default("b", ready=0)) is None
    for after_s in (0, SETTLE_S):
        assert look(after_s) is None


def test_a_version_beside_that_starts_again_is_kept(look: Look, server: EndedServer) -> None:
    noted = DesiredState("a", ("b",))
    write(server, noted)
    for after_s in (0, SETTLE_S):
        assert look(after_s, default("a"), beside("b", ready=0)) == noted
    look(0, default("a"), beside("c"), beside("b", ready=0))
    also = look(SETTLE_S, default("a"), beside("c"), beside("b", ready=0))
    assert also == DesiredState("a", ("b", "c"))


def test_what_was_unloaded_beside_is_noted(look: Look, server: EndedServer) -> None:
    write(server, DesiredState("a", ("b", "c")))
    look(0, default("a"), beside("b"), beside("c"))
    look(SETTLE_S, default("a"), beside("b"), beside("c"))
    look(0, default("a"), beside("c"))
    assert look(SETTLE_S, default("a"), beside("c")) == DesiredState("a", ("c",))


def test_what_cannot_be_written_down_is_tried_again(
    look: Look, server: EndedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(versions: DesiredStateFile, content: DesiredState) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(DesiredStateFile, "write", full)
        for after_s in (0, SETTLE_S):
            assert look(after_s, default("b")) is None
    assert look(RETRY_INTERVAL_S - 0.1, default("b")) is None
    assert look(0.1, default("b")) == DesiredState("b", previous=("a",))
    (server.settings.model_server_dir / FILE).write_text("no json")
    for after_s in (0, SETTLE_S):
        with pytest.raises(ArchiveError):  # by the look here, not by the supervisor
            look(after_s, default("c"))


def test_what_is_wanted_is_served_again(server: EndedServer) -> None:
    write(server, DesiredState("b", ("a", "c")))
    Supervisor(server).restart_if_exited()
    assert server.served == ["musiclab-b.mar", "musiclab-a.mar", "musiclab-c.mar"]
    assert (server.manifest["version"], server.started) == ("b", 1)


def test_a_damaged_version_beside_is_left_out(server: EndedServer, store: Path) -> None:
    write(server, DesiredState("b", ("a", "c")))
    archive_path(store, "a").write_text("text")
    Supervisor(server).restart_if_exited()
    assert server.served == ["musiclab-b.mar", "musiclab-c.mar"]


@pytest.mark.parametrize("fault", ["unreadable", "damaged", "missing"])
def test_what_served_before_serves_again_where_nothing_else_can(
    server: EndedServer, store: Path, fault: str
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


def test_what_runs_is_not_started_again(
    server: EndedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "is_running", lambda: True)
    write(server, DesiredState("b"))
    Supervisor(server).restart_if_exited()
    assert (server.served, server.started) == (["musiclab-a.mar"], 0)


def test_stopping_does_not_wait_for_archives_to_be_read(
    server: EndedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that hangs; TorchServe is not started when that goes on."""
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
    assert server.stopped == 1, "what TorchServe left is swept before"
    supervisor.stop()
    assert server.stopped == 2
    go_on.set()
    restart.join()
    assert server.started == 0


def test_what_is_just_being_started_is_stopped_afterwards(
    server: EndedServer, monkeypatch: pytest.MonkeyPatch
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


def test_a_supervisor_that_was_stopped_ends_and_starts_nothing(server: EndedServer) -> None:
    supervisor = Supervisor(server)
    supervisor.stop()
    supervisor.run(list)
    supervisor.restart_if_exited()
    assert server.started == 0


def test_a_restart_that_fails_ends_the_supervisor(
    server: EndedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        raise ModelServerError("port 8080 is taken")

    monkeypatch.setattr(supervisor_module, "CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr(server, "start", start)
    supervisor = Supervisor(server)
    with pytest.raises(ModelServerError, match="8080 is taken"):
        supervisor.run(list)
    supervisor.stop()


def test_a_first_archive_that_is_none_is_refused(settings: Settings, store: Path) -> None:
    archive_path(store, "a").write_text("text")
    with pytest.raises(ArchiveError, match="not a MusicLab archive"):
        TorchServe(settings, archive_path(store, "a"), archive_path(store, "b"))
