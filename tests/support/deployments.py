"""Deployments to the fake TorchServe, which loads a version immediately."""

import re
from collections.abc import Callable

from orchestrator.releases.deployer import Deployer
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from tests.support.quick_torchserve import QuickTorchServe, Response


class Messages:
    """Collects deployment messages; raises KeyboardInterrupt at one that contains `stop_at`."""

    def __init__(self, stop_at: str = "nowhere") -> None:
        self.sentences: list[str] = []
        self._stop_at = stop_at

    def __call__(self, sentence: str) -> None:
        self.sentences.append(sentence)
        if self._stop_at in sentence:
            raise KeyboardInterrupt

    def __contains__(self, pattern: str) -> bool:
        return any(re.search(pattern, sentence) for sentence in self.sentences)


def deployer_for(
    torchserve: QuickTorchServe, messages: Callable[[str], None] | None = None
) -> Deployer:
    return Deployer(torchserve.settings, messages or Messages())


def desired_state(torchserve: QuickTorchServe) -> DesiredState | None:
    return DesiredStateFile(torchserve.settings).read()


def write(torchserve: QuickTorchServe, content: DesiredState) -> None:
    DesiredStateFile(torchserve.settings).write(content)


def assert_versions(
    torchserve: QuickTorchServe, default: str, additional: set[str], written: DesiredState | None
) -> None:
    """Check the loaded versions, the default version and the desired state on disk."""
    assert (torchserve.default, set(torchserve.ready)) == (default, {default} | additional)
    assert desired_state(torchserve) == written


def run_at(torchserve: QuickTorchServe, step: str, do: Callable[[], Response | None]) -> None:
    """Call a function at a step of the fake.

    The steps "waiting" and "draining" are the polls after "register" and after "set-default".
    """
    before = {"waiting": "register", "draining": "set-default"}
    if step in before:
        torchserve.at[before[step]] = lambda: torchserve.at.update(describe=do)
    else:
        torchserve.at[step] = do
