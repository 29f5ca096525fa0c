"""`musiclab` commands that are killed, frozen and started again."""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests

from orchestrator.settings import Settings
from tests.support.project import PROJECT
from tests.support.service import ENDED_WITHIN_S, command, environment

READY_WITHIN_S = 120
LOOK_S = 0.1


@dataclass
class Command:
    """One serving command.

    Attributes:
        words: what follows `musiclab`.
        health: port at which it answers /ready; None for one that does not.
        log: what it says, over all its lives.
        extra: environment beside the settings.
    """

    words: tuple[str, ...]
    settings: Settings
    health: int | None
    log: Path
    extra: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command(*self.words),
                cwd=PROJECT,
                env=environment(self.settings, **self.extra),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """End it at once, and start the next one at once."""
        process = self._running()
        process.kill()
        process.wait()
        self.start()

    def freeze(self) -> None:
        self._running().send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(ENDED_WITHIN_S)
        finally:
            self._process.kill()
            self._process.wait()

    def is_ready(self) -> bool:
        """Whether jobs are run; an AssertionError if it ended by itself."""
        self._running()
        if self.health is None:
            return True
        try:
            return requests.get(f"http://127.0.0.1:{self.health}/ready", timeout=5).ok
        except requests.RequestException:
            return False

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.words} was not started; start() it"
        assert self._process.poll() is None, f"{self.words} ended by itself; see {self.log}"
        return self._process


def wait_until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(LOOK_S)


def wait_ready(*commands: Command) -> None:
    """Return once all of them run jobs, or would."""
    for each in commands:
        wait_until(each.is_ready, READY_WITHIN_S, f"{each.words} is ready; see {each.log}")
