"""The previous version is unloaded after its last request, or stays loaded."""

import _thread
from collections.abc import Iterator

import pytest

from orchestrator.archives.archive import archive_path
from orchestrator.errors import DeploymentError
from orchestrator.releases import deployer as deployer_module
from orchestrator.releases.desired_state import DesiredState
from tests.support.deployments import Messages, assert_versions, deployer_for, desired_state, run_at
from tests.support.quick_torchserve import QuickTorchServe, Response, responding

IDLE = b'{"database": true, "model_versions": {}}'
BUSY = b'{"database": true, "model_versions": {"a": {"in_flight": 2, "pinned": 0}}}'


def test_ctrl_c_while_the_previous_version_drains_keeps_it_loaded(
    torchserve: QuickTorchServe,
) -> None:
    run_at(torchserve, "draining", _thread.interrupt_main)
    messages = Messages()
    with pytest.raises(KeyboardInterrupt):
        deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert messages.sentences[-1] == (
        "a stays loaded: the wait was interrupted. "
        "Run `musiclab model remove a --keep-archive` to unload it later"
    )


@pytest.fixture
def busy(torchserve: QuickTorchServe, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickTorchServe]:
    """The fake TorchServe, and an orchestrator that always reports running requests to "a"."""
    monkeypatch.setattr(deployer_module, "DRAIN_TIMEOUT_S", 0.02)
    with responding(lambda method, path: (200, BUSY)) as url:
        torchserve.settings = torchserve.settings.model_copy(update={"orchestrator_urls": url})
        yield torchserve


def test_a_version_that_is_always_in_use_stays_loaded(busy: QuickTorchServe) -> None:
    busy.pending["a"] = 3
    messages = Messages()
    deployer_for(busy, messages).deploy("b")
    assert_versions(busy, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert (
        "a stays loaded: 3 requests are queued in TorchServe; 2 requests are in progress at http.*"
        "Run `musiclab model remove a --keep-archive` to unload it later"
    ) in messages
    with pytest.raises(DeploymentError, match="version a could not be unloaded yet"):
        deployer_for(busy).remove("a")
    assert_versions(busy, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert archive_path(busy.settings.model_store, "a").exists()


def test_a_version_is_unloaded_after_its_last_request(torchserve: QuickTorchServe) -> None:
    queries: list[str] = []

    def in_flight(method: str, path: str) -> Response:
        queries.append(path)
        # Idle, but not for long enough: a request may not have been counted yet.
        return (200, IDLE) if len(queries) != 2 else (200, BUSY)

    with responding(in_flight) as url:
        torchserve.settings = torchserve.settings.model_copy(update={"orchestrator_urls": url})
        deployer_for(torchserve).deploy("b")
    assert queries == ["/in-flight"] * (2 + deployer_module.IDLE_CHECKS)
    assert_versions(torchserve, "b", set(), DesiredState("b", previous=("a",)))


def test_a_deployment_succeeds_if_torchserve_exits_while_draining(
    torchserve: QuickTorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer_module, "DRAIN_TIMEOUT_S", 0.02)
    run_at(torchserve, "draining", torchserve.end)
    messages = Messages()
    deployer_for(torchserve, messages).deploy("b")
    assert desired_state(torchserve) == DesiredState("b", ("a",), ("a",))
    assert "a stays loaded: the length of TorchServe's queue is unknown" in messages


def test_a_version_unloaded_by_another_client_counts_as_unloaded(
    torchserve: QuickTorchServe,
) -> None:
    torchserve.at["unregister"] = lambda: torchserve.forget("a")
    messages = Messages()
    deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "b", set(), DesiredState("b", previous=("a",)))
    assert messages.sentences[-1] == "a is unloaded"


def test_a_version_that_cannot_be_unloaded_stays_loaded(torchserve: QuickTorchServe) -> None:
    torchserve.at["unregister"] = lambda: (500, b'{"message": "it hangs"}')
    messages = Messages()
    deployer_for(torchserve, messages).deploy("b")
    assert_versions(torchserve, "b", {"a"}, DesiredState("b", ("a",), ("a",)))
    assert (
        "a stays loaded: TorchServe returned 500: it hangs. Run `musiclab model remove" in messages
    )
