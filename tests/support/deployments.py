"""Deployments to a TorchServe that loads a version at once."""

import re
from collections.abc import Callable

from orchestrator.releases.deployer import Deployer
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from tests.support.quick_torchserve import Answer, QuickTorchServe


class Messages:
    """What a deployment says; `stop_at` is where somebody presses Ctrl-C."""

    def __init__(self, stop_at: str = "nowhere") -> None:
        self.sentences: list[str] = []
        self._stop_at = stop_at

    def __call__(self, sentence: str) -> None:
        self.sentences.append(sentence)
        if self._stop_at in sentence:
            raise KeyboardInterrupt

    def __contains__(self, pattern: str) -> bool:
        return any(re.search(pattern, sentence) for sentence in self.sentences)


def deploying(served: QuickTorchServe, told: Callable[[str], None] | None = None) -> Deployer:
    return Deployer(served.settings, told or Messages())


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
