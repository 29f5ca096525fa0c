"""`musiclab` commands that can be killed, frozen and restarted."""

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
POLL_S = 0.1


@dataclass
class Command:
    """One serving command.

    Attributes:
        words: the arguments after `musiclab`.
        health: port on which it serves /ready; None if it serves none.
        log: its output, across all restarts.
        extra: additional environment variables.
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
        """Kill the process and restart it immediately."""
        process = self._running()
        process.kill()
        process.wait()
        self.start()

    def freeze(self) -> None:
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
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
        """True if /ready succeeds; raises AssertionError if the process exited unexpectedly."""
        self._running()
        if self.health is None:
            return True
        try:
            return requests.get(f"http://127.0.0.1:{self.health}/ready", timeout=5).ok
        except requests.RequestException:
            return False

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.words} was not started; call start()"
        assert self._process.poll() is None, f"{self.words} exited unexpectedly; see {self.log}"
        return self._process


def wait_until(condition: Callable[[], bool], within_s: float, goal: str) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {goal}"
        time.sleep(POLL_S)


def wait_ready(*commands: Command) -> None:
    """Wait until all commands are ready."""
    for each in commands:
        wait_until(each.is_ready, READY_WITHIN_S, f"{each.words} is ready; see {each.log}")
