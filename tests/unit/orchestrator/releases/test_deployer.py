"""A deployment that fails at some step leaves what served before, and says what it could not do."""

import _thread
import errno
import os
import time
from threading import Event, Thread, Timer

import pytest

from orchestrator.archives.archive import archive_path
from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.releases import deployer as deployer_module
from orchestrator.releases.desired_state import FILE, DesiredState, DesiredStateFile
from tests.support.deployments import Messages, assert_serves, deploying, on, wanted, write
from tests.support.quick_torchserve import Answer, QuickTorchServe

STEPS = ("register", "waiting", "predict", "set-default")


def test_a_version_that_serves_ends_the_one_before(served: QuickTorchServe) -> None:
    told = Messages()
    deploying(served, told).deploy("b")
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    assert [sentence.split(";")[0] for sentence in told.sentences] == [
        "version b is registered",
        "a worker is ready",
        "it made music of the canary job (root mean square 0.100)",
        "b serves now",
        "a is unloaded",
    ]


@pytest.mark.parametrize("step", STEPS)
def test_torchserve_ends(served: QuickTorchServe, step: str) -> None:
    on(served, step, served.end)
    told = Messages()
    explanation = "gave the canary job no answer" if step == "predict" else "does not answer at"
    with pytest.raises(DeploymentError, match=explanation):
        deploying(served, told).deploy("b")
    # What it had loaded went with it; it comes back with what is written.
    assert wanted(served) is None
    assert "could not unload b: .*[Cc]onnection" in told
    assert ("could not let a serve: .*[Cc]onnection" in told) == (step == "set-default")


@pytest.mark.parametrize("step", STEPS)
def test_torchserve_refuses(served: QuickTorchServe, step: str) -> None:
    def refuse() -> Answer:
        served.at.clear()
        return 500, b'{"message": "no memory"}'

    on(served, step, refuse)
    told = Messages()
    with pytest.raises(DeploymentError, match="500: no memory"):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", set(), None)
    assert "could not" not in told


@pytest.mark.parametrize("after", ["is registered", "worker is ready", "canary job"])
def test_ctrl_c_before_it_serves_takes_everything_back(served: QuickTorchServe, after: str) -> None:
    told = Messages(stop_at=after)
    with pytest.raises(KeyboardInterrupt):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", set(), None)
    assert after in told.sentences[-1]


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_while_a_request_is_on_its_way_takes_it_back(
    served: QuickTorchServe, step: str
) -> None:
    def stop() -> None:
        served.at.clear()
        _thread.interrupt_main()

    on(served, step, stop)
    with pytest.raises(KeyboardInterrupt):
        deploying(served).deploy("b")
    assert_serves(served, "a", set(), None)


def test_a_full_disk_lets_the_old_version_serve(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(versions: DesiredStateFile, content: DesiredState) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(served, DesiredState("a", previous=("c",)))
    monkeypatch.setattr(DesiredStateFile, "write", full)
    told = Messages()
    with pytest.raises(OSError, match="No space left"):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", set(), DesiredState("a", previous=("c",)))
    assert "could not" not in told


def test_a_step_that_cannot_be_taken_back_is_told(served: QuickTorchServe) -> None:
    served.at["predict"] = lambda: (507, b'{"message": "out of memory"}')
    served.at["unregister"] = lambda: (500, b'{"message": "it hangs"}')
    told = Messages()
    with pytest.raises(DeploymentError, match="answered the canary job with 507: out of memory"):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", {"b"}, None)
    assert told.sentences[-1] == "could not unload b: TorchServe answered 500: it hangs"


def test_a_version_that_was_loaded_before_stays_so(served: QuickTorchServe) -> None:
    served.serve("a", "b")
    served.at["predict"] = lambda: (503, b"")
    with pytest.raises(DeploymentError, match="answered the canary job with 503"):
        deploying(served).deploy("b")
    assert_serves(served, "a", {"b"}, None)


def test_a_version_that_is_never_ready(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer_module, "LOAD_TIMEOUT_S", 0.02)
    served.loads = False
    with pytest.raises(DeploymentError, match=r"version b was not ready after 0\.02 s"):
        deploying(served).deploy("b")
    assert_serves(served, "a", set(), None)


def test_a_version_that_somebody_else_unloads_while_it_loads(served: QuickTorchServe) -> None:
    on(served, "waiting", lambda: served.forget("b"))
    with pytest.raises(DeploymentError, match="b is gone: somebody else unloaded it"):
        deploying(served).deploy("b")
    assert_serves(served, "a", set(), None)


def test_an_archive_that_is_not_there_or_none_changes_nothing(served: QuickTorchServe) -> None:
    archive_path(served.settings.model_store, "text").write_text("text")
    for version, explanation in (("gone", "no archive at"), ("text", "not a MusicLab archive")):
        with pytest.raises(ArchiveError, match=explanation):
            deploying(served).deploy(version)
    archive_path(served.settings.model_store, "c").rename(
        archive_path(served.settings.model_store, "d")
    )
    with pytest.raises(DeploymentError, match="says that it is version c; pack it anew"):
        deploying(served).deploy("d")
    assert_serves(served, "a", set(), None)


def test_what_cannot_be_read_is_written_anew(served: QuickTorchServe) -> None:
    (served.settings.model_server_dir / FILE).write_text("no json")
    told = Messages()
    deploying(served, told).deploy("b")
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    assert r"wanted\.json cannot be read.*it is written anew" in told


def test_nothing_is_removed_where_what_is_wanted_cannot_be_read(served: QuickTorchServe) -> None:
    served.serve("a", "b")
    file = served.settings.model_server_dir / FILE
    file.write_text("no json")
    with pytest.raises(ArchiveError, match=r"wanted\.json cannot be read"):
        deploying(served).remove("b")
    assert (served.default, set(served.ready), file.read_text()) == ("a", {"a", "b"}, "no json")
    assert archive_path(served.settings.model_store, "b").exists()


def test_the_second_of_two_is_refused(served: QuickTorchServe) -> None:
    with DesiredStateFile(served.settings).exclusive():
        began = time.monotonic()
        with pytest.raises(DeploymentError, match="another command is changing what serves"):
            deploying(served).deploy("b")
        assert time.monotonic() - began >= deployer_module.LOCK_TIMEOUT_S
    assert_serves(served, "a", set(), None)


def test_the_second_of_two_goes_on_when_the_first_ends_in_time(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer_module, "LOCK_TIMEOUT_S", 10.0)
    begun, end = Event(), Event()

    def first() -> None:
        with DesiredStateFile(served.settings).exclusive():
            begun.set()
            end.wait(10)

    thread = Thread(target=first)
    thread.start()
    assert begun.wait(10)
    Timer(0.02, end.set).start()
    deploying(served).deploy("b")
    thread.join()
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))


def test_what_serves_is_not_removed(served: QuickTorchServe) -> None:
    write(served, DesiredState("b"))
    for version in ("a", "b"):  # by TorchServe, and by what is written
        with pytest.raises(DeploymentError, match=f"version {version} is the one that serves"):
            deploying(served).remove(version)
    with pytest.raises(DeploymentError, match="there is no version gone"):
        deploying(served).remove("gone")
    assert_serves(served, "a", set(), DesiredState("b"))


def test_without_torchserve_nothing_is_changed(served: QuickTorchServe) -> None:
    write(served, DesiredState("a", ("b",)))
    served.end()
    for change in (deploying(served).deploy, deploying(served).remove):
        with pytest.raises(DeploymentError, match=r"does not answer at http.*`musiclab up`"):
            change("b")
    assert wanted(served) == DesiredState("a", ("b",))
    assert archive_path(served.settings.model_store, "b").exists()
