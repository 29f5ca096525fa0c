"""The version that served before is unloaded after its last request, or stays loaded."""

import _thread
from collections.abc import Iterator

import pytest

from orchestrator.archives.archive import archive_path
from orchestrator.errors import DeploymentError
from orchestrator.releases import deployer as deployer_module
from orchestrator.releases.desired_state import DesiredState
from tests.support.deployments import Messages, assert_serves, deploying, on, wanted
from tests.support.quick_torchserve import Answer, QuickTorchServe, answering

IDLE = b'{"database": true, "model_versions": {}}'
AT_WORK = b'{"database": true, "model_versions": {"a": {"in_flight": 2, "pinned": 0}}}'


def test_ctrl_c_while_the_old_version_drains_leaves_it_loaded(served: QuickTorchServe) -> None:
    on(served, "draining", _thread.interrupt_main)
    told = Messages()
    with pytest.raises(KeyboardInterrupt):
        deploying(served, told).deploy("b")
    assert_serves(served, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert told.sentences[-1] == (
        "a stays loaded: you stopped waiting. "
        "`musiclab model remove a --keep-archive` ends it later"
    )


@pytest.fixture
def used(served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickTorchServe]:
    """The same, and an orchestrator that has requests to "a" at work without end."""
    monkeypatch.setattr(deployer_module, "DRAIN_TIMEOUT_S", 0.02)
    with answering(lambda method, path: (200, AT_WORK)) as url:
        served.settings = served.settings.model_copy(update={"orchestrator_urls": url})
        yield served


def test_a_version_that_is_used_without_end_stays_loaded(used: QuickTorchServe) -> None:
    used.pending["a"] = 3
    told = Messages()
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

    def in_flight(method: str, path: str) -> Answer:
        looks.append(path)
        # Quiet, but not for long enough: what is on its way is not seen yet.
        return (200, IDLE) if len(looks) != 2 else (200, AT_WORK)

    with answering(in_flight) as url:
        served.settings = served.settings.model_copy(update={"orchestrator_urls": url})
        deploying(served).deploy("b")
    assert looks == ["/in-flight"] * (2 + deployer_module.IDLE_CHECKS)
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))


def test_torchserve_ends_while_the_old_version_drains(
    served: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer_module, "DRAIN_TIMEOUT_S", 0.02)
    on(served, "draining", served.end)
    told = Messages()
    deploying(served, told).deploy("b")
    assert wanted(served) == DesiredState("b", ("a",), ("a",))
    assert "a stays loaded: TorchServe does not say what it works on" in told


def test_a_version_that_somebody_else_unloads_is_unloaded(served: QuickTorchServe) -> None:
    served.at["unregister"] = lambda: served.forget("a")
    told = Messages()
    deploying(served, told).deploy("b")
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    assert told.sentences[-1] == "a is unloaded"


def test_a_version_that_cannot_be_unloaded_stays(served: QuickTorchServe) -> None:
    served.at["unregister"] = lambda: (500, b'{"message": "it hangs"}')
    told = Messages()
    deploying(served, told).deploy("b")
    assert_serves(served, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert "a stays loaded: TorchServe answered 500: it hangs. `musiclab model remove" in told
