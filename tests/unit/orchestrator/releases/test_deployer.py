"""A deployment that fails at any step is undone, and steps that cannot be undone are reported."""

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
from tests.support.deployments import (
    Messages,
    assert_versions,
    deployer_for,
    desired_state,
    run_at,
    write,
)
from tests.support.quick_torchserve import QuickTorchServe, Response

STEPS = ("register", "waiting", "predict", "set-default")


def test_a_deployed_version_replaces_the_previous_one(torchserve: QuickTorchServe) -> None:
    messages = Messages()
    deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "b", set(), DesiredState("b", previous=("a",)))
    assert [sentence.split(";")[0] for sentence in messages.sentences] == [
        "version b is registered",
        "a worker is ready",
        "the canary job passed (root mean square 0.100)",
        "b is now the default version",
        "a is unloaded",
    ]


@pytest.mark.parametrize("step", STEPS)
def test_a_deployment_fails_if_torchserve_exits(torchserve: QuickTorchServe, step: str) -> None:
    run_at(torchserve, step, torchserve.end)
    messages = Messages()
    explanation = "did not respond to the canary job" if step == "predict" else "is unreachable at"
    with pytest.raises(DeploymentError, match=explanation):
        deployer_for(torchserve, messages).deploy("b")
    # The loaded versions are gone; a restart loads those of the desired state.
    assert desired_state(torchserve) is None
    assert "could not unload b: .*[Cc]onnection" in messages
    assert ("could not restore a as default: .*[Cc]onnection" in messages) == (
        step == "set-default"
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_deployment_is_undone_if_torchserve_rejects_a_step(
    torchserve: QuickTorchServe, step: str
) -> None:
    def reject() -> Response:
        torchserve.at.clear()
        return 500, b'{"message": "no memory"}'

    run_at(torchserve, step, reject)
    messages = Messages()
    with pytest.raises(DeploymentError, match="500: no memory"):
        deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "a", set(), None)
    assert "could not" not in messages


@pytest.mark.parametrize("after", ["is registered", "worker is ready", "canary job"])
def test_ctrl_c_before_the_switch_undoes_the_deployment(
    torchserve: QuickTorchServe, after: str
) -> None:
    messages = Messages(stop_at=after)
    with pytest.raises(KeyboardInterrupt):
        deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "a", set(), None)
    assert after in messages.sentences[-1]


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_during_a_request_undoes_the_deployment(
    torchserve: QuickTorchServe, step: str
) -> None:
    def stop() -> None:
        torchserve.at.clear()
        _thread.interrupt_main()

    run_at(torchserve, step, stop)
    with pytest.raises(KeyboardInterrupt):
        deployer_for(torchserve).deploy("b")
    assert_versions(torchserve, "a", set(), None)


def test_a_full_disk_keeps_the_previous_version(
    torchserve: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disk_full(versions: DesiredStateFile, content: DesiredState) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(torchserve, DesiredState("a", previous=("c",)))
    monkeypatch.setattr(DesiredStateFile, "write", raise_disk_full)
    messages = Messages()
    with pytest.raises(OSError, match="No space left"):
        deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "a", set(), DesiredState("a", previous=("c",)))
    assert "could not" not in messages


def test_a_step_that_cannot_be_undone_is_reported(torchserve: QuickTorchServe) -> None:
    torchserve.at["predict"] = lambda: (507, b'{"message": "out of memory"}')
    torchserve.at["unregister"] = lambda: (500, b'{"message": "it hangs"}')
    messages = Messages()
    with pytest.raises(DeploymentError, match="failed the canary job with 507: out of memory"):
        deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "a", {"b"}, None)
    assert messages.sentences[-1] == "could not unload b: TorchServe returned 500: it hangs"


def test_a_version_that_was_already_loaded_stays_loaded(torchserve: QuickTorchServe) -> None:
    torchserve.serve("a", "b")
    torchserve.at["predict"] = lambda: (503, b"")
    with pytest.raises(DeploymentError, match="failed the canary job with 503"):
        deployer_for(torchserve).deploy("b")
    assert_versions(torchserve, "a", {"b"}, None)


def test_a_version_that_never_becomes_ready_is_unloaded(
    torchserve: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer_module, "LOAD_TIMEOUT_S", 0.02)
    torchserve.loads = False
    with pytest.raises(DeploymentError, match=r"version b was not ready after 0\.02 s"):
        deployer_for(torchserve).deploy("b")
    assert_versions(torchserve, "a", set(), None)


def test_a_deployment_fails_if_another_client_unloads_the_version(
    torchserve: QuickTorchServe,
) -> None:
    run_at(torchserve, "waiting", lambda: torchserve.forget("b"))
    with pytest.raises(
        DeploymentError, match="b is no longer registered: another client unloaded it"
    ):
        deployer_for(torchserve).deploy("b")
    assert_versions(torchserve, "a", set(), None)


def test_a_missing_or_invalid_archive_changes_nothing(torchserve: QuickTorchServe) -> None:
    archive_path(torchserve.settings.model_store, "text").write_text("text")
    for version, explanation in (("gone", "no archive at"), ("text", "not a MusicLab archive")):
        with pytest.raises(ArchiveError, match=explanation):
            deployer_for(torchserve).deploy(version)
    archive_path(torchserve.settings.model_store, "c").rename(
        archive_path(torchserve.settings.model_store, "d")
    )
    with pytest.raises(DeploymentError, match="contains version c; pack it again"):
        deployer_for(torchserve).deploy("d")
    assert_versions(torchserve, "a", set(), None)


def test_an_unreadable_desired_state_is_rewritten(torchserve: QuickTorchServe) -> None:
    (torchserve.settings.model_server_dir / FILE).write_text("no json")
    messages = Messages()
    deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "b", set(), DesiredState("b", previous=("a",)))
    assert r"wanted\.json cannot be read.*it will be replaced" in messages


def test_nothing_is_removed_if_the_desired_state_is_unreadable(torchserve: QuickTorchServe) -> None:
    torchserve.serve("a", "b")
    file = torchserve.settings.model_server_dir / FILE
    file.write_text("no json")
    with pytest.raises(ArchiveError, match=r"wanted\.json cannot be read"):
        deployer_for(torchserve).remove("b")
    assert (torchserve.default, set(torchserve.ready), file.read_text()) == (
        "a",
        {"a", "b"},
        "no json",
    )
    assert archive_path(torchserve.settings.model_store, "b").exists()


def test_a_concurrent_deployment_is_rejected(torchserve: QuickTorchServe) -> None:
    with DesiredStateFile(torchserve.settings).exclusive():
        began = time.monotonic()
        with pytest.raises(
            DeploymentError, match="another command is changing the deployed versions"
        ):
            deployer_for(torchserve).deploy("b")
        assert time.monotonic() - began >= deployer_module.LOCK_TIMEOUT_S
    assert_versions(torchserve, "a", set(), None)


def test_a_deployment_waits_for_a_concurrent_one_to_end(
    torchserve: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer_module, "LOCK_TIMEOUT_S", 10.0)
    begun, end = Event(), Event()

    def first() -> None:
        with DesiredStateFile(torchserve.settings).exclusive():
            begun.set()
            end.wait(10)

    thread = Thread(target=first)
    thread.start()
    assert begun.wait(10)
    Timer(0.02, end.set).start()
    deployer_for(torchserve).deploy("b")
    thread.join()
    assert_versions(torchserve, "b", set(), DesiredState("b", previous=("a",)))


def test_the_default_version_is_not_removed(torchserve: QuickTorchServe) -> None:
    write(torchserve, DesiredState("b"))
    for version in ("a", "b"):  # the default in TorchServe, and in the desired state
        with pytest.raises(
            DeploymentError, match=f"version {version} is the default; deploy another"
        ):
            deployer_for(torchserve).remove(version)
    with pytest.raises(DeploymentError, match="there is no version gone"):
        deployer_for(torchserve).remove("gone")
    assert_versions(torchserve, "a", set(), DesiredState("b"))


def test_without_torchserve_nothing_is_changed(torchserve: QuickTorchServe) -> None:
    write(torchserve, DesiredState("a", ("b",)))
    torchserve.end()
    for change in (deployer_for(torchserve).deploy, deployer_for(torchserve).remove):
        with pytest.raises(DeploymentError, match=r"is unreachable at http.*`musiclab up`"):
            change("b")
    assert desired_state(torchserve) == DesiredState("a", ("b",))
    assert archive_path(torchserve.settings.model_store, "b").exists()
