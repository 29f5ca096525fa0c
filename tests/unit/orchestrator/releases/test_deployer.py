"""A deployment that fails at some step leaves what served before, and says what it could not do."""

import _thread
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread, Timer

import pytest

from orchestrator.archives.packing import archive_path
from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.releases import deployer as deployment_module
from orchestrator.releases import desired_state as wanted_module
from orchestrator.releases.deployer import Deployer
from orchestrator.releases.desired_state import FILE, DesiredState, DesiredStateFile
from tests.support.quick_torchserve import Answer, QuickTorchServe, answering, quick_torchserve
from tests.support.settings import settings_in

STEPS = ("register", "waiting", "predict", "set-default")
AT_WORK = b"""# TYPE musiclab_inference_requests_in_flight gauge
musiclab_inference_requests_in_flight{model_version="a"} 2.0
"""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickTorchServe]:
    monkeypatch.setattr(deployment_module, "POLL_S", 0.001)
    monkeypatch.setattr(deployment_module, "REGISTERED_WITHIN_S", 0.02)
    monkeypatch.setattr(deployment_module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(wanted_module, "POLL_S", 0.002)
    with quick_torchserve(settings_in(tmp_path)) as server:
        yield server


class Told:
    """What a deployment says; `stop_at` is where somebody presses Ctrl-C."""

    def __init__(self, stop_at: str = "nowhere") -> None:
        self.exit_on_error: list[str] = []
        self._stop_at = stop_at

    def __call__(self, sentence: str) -> None:
        self.exit_on_error.append(sentence)
        if self._stop_at in sentence:
            raise KeyboardInterrupt

    def __contains__(self, pattern: str) -> bool:
        return any(re.search(pattern, sentence) for sentence in self.exit_on_error)


def deploying(served: QuickTorchServe, told: Callable[[str], None] | None = None) -> Deployer:
    return Deployer(served.settings, told or Told())


def wanted(served: QuickTorchServe) -> DesiredState | None:
    return DesiredStateFile(served.settings).read()


def write(served: QuickTorchServe, content: DesiredState) -> None:
    DesiredStateFile(served.settings).write(content)


def assert_serves(
    served: QuickTorchServe, default: str, beside: set[str], written: DesiredState | None
) -> None:
    """What is loaded, which is the default, and what is written down."""
    assert (served.default, set(served.ready)) == (default, {default} | beside)
    assert wanted(served) == written


def on(served: QuickTorchServe, step: str, do: Callable[[], Answer | None]) -> None:
    """Have something done at a step; "waiting" and "draining" are the looks after another one."""
    before = {"waiting": "register", "draining": "set-default"}
    if step in before:
        served.at[before[step]] = lambda: served.at.update(describe=do)
    else:
        served.at[step] = do


def test_a_version_that_serves_ends_the_one_before(served: QuickTorchServe) -> None:
    told = Told()
    deploying(served, told).deploy("b")
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    assert [sentence.split(";")[0] for sentence in told.exit_on_error] == [
        "version b is registered",
        "a worker is ready",
        "it made music of the canary job (root mean square 0.100)",
        "b serves now",
        "a is unloaded",
    ]


@pytest.mark.parametrize("step", STEPS)
def test_torchserve_ends(served: QuickTorchServe, step: str) -> None:
    on(served, step, served.end)
    told = Told()
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
    told = Told()
    with pytest.raises(DeploymentError, match="500: no memory"):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", set(), None)
    assert "could not" not in told


@pytest.mark.parametrize("after", ["is registered", "worker is ready", "canary job"])
def test_ctrl_c_before_it_serves_takes_everything_back(served: QuickTorchServe, after: str) -> None:
    told = Told(stop_at=after)
    with pytest.raises(KeyboardInterrupt):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", set(), None)
    assert after in told.exit_on_error[-1]


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


def test_ctrl_c_while_the_old_version_drains_leaves_it_loaded(served: QuickTorchServe) -> None:
    on(served, "draining", _thread.interrupt_main)
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        deploying(served, told).deploy("b")
    assert_serves(served, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert told.exit_on_error[-1] == (
        "a stays loaded: you stopped waiting. "
        "`musiclab model remove a --keep-archive` ends it later"
    )


def test_a_full_disk_lets_the_old_version_serve(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(versions: DesiredStateFile, content: DesiredState) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(served, DesiredState("a", previous=("c",)))
    monkeypatch.setattr(DesiredStateFile, "write", full)
    told = Told()
    with pytest.raises(OSError, match="No space left"):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", set(), DesiredState("a", previous=("c",)))
    assert "could not" not in told


def test_a_step_that_cannot_be_taken_back_is_told(served: QuickTorchServe) -> None:
    served.at["predict"] = lambda: (507, b'{"message": "out of memory"}')
    served.at["unregister"] = lambda: (500, b'{"message": "it hangs"}')
    told = Told()
    with pytest.raises(DeploymentError, match="answered the canary job with 507: out of memory"):
        deploying(served, told).deploy("b")
    assert_serves(served, "a", {"b"}, None)
    assert told.exit_on_error[-1] == "could not unload b: TorchServe answered 500: it hangs"


def test_a_version_that_was_loaded_before_stays_so(served: QuickTorchServe) -> None:
    served.serve("a", "b")
    served.at["predict"] = lambda: (503, b"")
    with pytest.raises(DeploymentError, match="answered the canary job with 503"):
        deploying(served).deploy("b")
    assert_serves(served, "a", {"b"}, None)


def test_a_version_that_is_never_ready(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_module, "LOADED_WITHIN_S", 0.02)
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
    told = Told()
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


@pytest.fixture
def used(served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickTorchServe]:
    """The same, and an orchestrator that has requests to "a" at work without end."""
    monkeypatch.setattr(deployment_module, "DRAINED_WITHIN_S", 0.02)
    with answering(lambda method, path: (200, AT_WORK)) as url:
        served.settings = served.settings.model_copy(update={"orchestrator_urls": url})
        yield served


def test_a_version_that_is_used_without_end_stays_loaded(used: QuickTorchServe) -> None:
    used.pending["a"] = 3
    told = Told()
    deploying(used, told).deploy("b")
    assert_serves(used, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert (
        "a stays loaded: 3 requests wait in TorchServe; 2 requests are at work at http.*"
        "`musiclab model remove a --keep-archive` ends it later"
    ) in told
    with pytest.raises(DeploymentError, match="version a could not be unloaded yet"):
        deploying(used).remove("a")
    assert_serves(used, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert archive_path(used.settings.model_store, "a").exists()


def test_a_version_is_unloaded_after_the_last_of_its_users(served: QuickTorchServe) -> None:
    looks: list[str] = []

    def metrics(method: str, path: str) -> Answer:
        looks.append(path)
        # Quiet, but not for long enough: what is on its way is not seen yet.
        return (200, b"") if len(looks) != 2 else (200, AT_WORK)

    with answering(metrics) as url:
        served.settings = served.settings.model_copy(update={"orchestrator_urls": url})
        deploying(served).deploy("b")
    assert looks == ["/metrics"] * (2 + deployment_module.QUIET_LOOKS)
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))


def test_torchserve_ends_while_the_old_version_drains(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_module, "DRAINED_WITHIN_S", 0.02)
    on(served, "draining", served.end)
    told = Told()
    deploying(served, told).deploy("b")
    assert wanted(served) == DesiredState("b", ("a",), ("a",))
    assert "a stays loaded: TorchServe does not say what it works on" in told


def test_a_version_that_somebody_else_unloads_is_unloaded(served: QuickTorchServe) -> None:
    served.at["unregister"] = lambda: served.forget("a")
    told = Told()
    deploying(served, told).deploy("b")
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    assert told.exit_on_error[-1] == "a is unloaded"


def test_a_version_that_cannot_be_unloaded_stays(served: QuickTorchServe) -> None:
    served.at["unregister"] = lambda: (500, b'{"message": "it hangs"}')
    told = Told()
    deploying(served, told).deploy("b")
    assert_serves(served, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert "a stays loaded: TorchServe answered 500: it hangs. `musiclab model remove" in told


def test_the_second_of_two_is_refused(served: QuickTorchServe) -> None:
    with DesiredStateFile(served.settings).changing():
        began = time.monotonic()
        with pytest.raises(DeploymentError, match="another command is changing what serves"):
            deploying(served).deploy("b")
        assert time.monotonic() - began >= deployment_module.PATIENCE_S
    assert_serves(served, "a", set(), None)


def test_the_second_of_two_goes_on_when_the_first_ends_in_time(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_module, "PATIENCE_S", 10.0)
    begun, end = Event(), Event()

    def first() -> None:
        with DesiredStateFile(served.settings).changing():
            begun.set()
            end.wait(10)

    thread = Thread(target=first)
    thread.start()
    assert begun.wait(10)
    Timer(0.02, end.set).start()
    deploying(served).deploy("b")
    thread.join()
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))


def test_each_rollback_goes_further_back(served: QuickTorchServe) -> None:
    for version in ("b", "c"):
        deploying(served).deploy(version)
    assert_serves(served, "c", set(), DesiredState("c", previous=("a", "b")))
    deploying(served).rollback()
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a"))
    with pytest.raises(DeploymentError, match="no version to go back to"):
        deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a"))


def test_a_rollback_passes_over_archives_that_are_gone(served: QuickTorchServe) -> None:
    served.serve("c")
    write(served, DesiredState("c", previous=("a", "b")))
    archive_path(served.settings.model_store, "b").unlink()
    deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a", previous=("b",)))
    with pytest.raises(DeploymentError, match="their archives are no longer in"):
        deploying(served).rollback()


def test_a_rollback_that_fails_can_be_repeated(served: QuickTorchServe) -> None:
    served.serve("b")
    write(served, DesiredState("b", previous=("a",)))
    served.at["predict"] = lambda: (503, b"")
    with pytest.raises(DeploymentError, match="503"):
        deploying(served).rollback()
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    served.at.clear()
    deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a"))


@pytest.mark.parametrize(("chosen", "back"), [("c", "b"), ("a", "b")])
def test_a_rollback_goes_back_from_what_was_chosen_by_hand(
    served: QuickTorchServe, chosen: str, back: str
) -> None:
    write(served, DesiredState("b", previous=("a",)))
    served.serve(chosen, *{"a", "b", "c"} - {chosen})  # not noted yet
    deploying(served).rollback()
    assert served.default == back
    assert chosen not in served.ready


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
