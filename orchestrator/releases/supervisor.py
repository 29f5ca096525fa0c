"""Keeps TorchServe running with the desired versions, and records which it serves."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Event, Lock

import structlog

from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from orchestrator.serving.management import RegisteredVersion
from orchestrator.serving.process import TorchServe
from orchestrator.serving.status import LoadedVersion

CHECK_INTERVAL_S = 0.5
SETTLE_S = 3.0
RETRY_INTERVAL_S = 60.0

Versions = Iterable[LoadedVersion | RegisteredVersion]

log = structlog.get_logger()


class Supervisor:
    """Restarts one TorchServe whenever it exits, and records what it serves.

    All methods but `request_stop` block: they read archives of hundreds of megabytes and wait for
    ports. It and `stop` may be called from any thread, the others from one.
    """

    def __init__(self, server: TorchServe) -> None:
        self._server = server
        self._state_file = DesiredStateFile(server.settings)
        self._recorded = self._last_seen = {server.manifest["version"]: True}
        self._settled_at = 0.0
        self._retry_at = 0.0
        self._stopped = Event()
        # Held to start or stop TorchServe, not to read archives, which may take any time.
        self._starting = Lock()

    def run(self, served: Callable[[], Versions | None], record_every: int = 1) -> None:
        """Supervise TorchServe, which was started before, until `stop`.

        The calling thread restarts TorchServe and therefore has to outlast it: see
        `TorchServe.start`.

        Args:
            served: returns the versions that TorchServe serves now; None if it does not answer.
            record_every: how many checks of the process there are to one of the versions.

        Raises:
            ModelServerError: TorchServe exited and could not be restarted.
        """
        checks = 0
        while not self._stopped.wait(CHECK_INTERVAL_S):
            self.restart_if_exited()
            if checks % record_every == 0 and (versions := served()) is not None:
                self.record_served_versions(versions)
            checks += 1

    def request_stop(self) -> None:
        """Restart and record nothing from now on; TorchServe goes on."""
        self._stopped.set()

    def stop(self) -> None:
        """End TorchServe for good, whatever state a restart is in.

        Waits for a restart only while that starts the process, which takes a few seconds at most.
        """
        self._stopped.set()
        with self._starting:
            self._server.stop()

    def restart_if_exited(self) -> None:
        """Restart TorchServe where its process exited.

        It has forgotten which versions were registered since its start, hence the desired ones
        are read again.

        Raises:
            ModelServerError: it could not be started.
        """
        with self._starting:
            if self._stopped.is_set() or self._server.is_running():
                return
            log.warning("TorchServe ended; it is started again")
            self._server.stop()
        try:
            if archives := self._state_file.archives(self._state_file.read()):
                self._server.set_archives(*archives)
        except ArchiveError as error:
            log.error("what served before serves again", reason=str(error))
        with self._starting:
            if not self._stopped.is_set():
                self._server.start()

    def record_served_versions(self, versions: Versions) -> None:
        """Write down what serves, so that it also survives when `musiclab model` did not change it.

        A version that is not ready is not recorded: it may be one that cannot be loaded. Nor is
        what has served for less than SETTLE_S seconds.
        """
        loaded = list(versions)
        ready = {each.version: each.default for each in loaded if each.ready}
        default = next((version for version in ready if ready[version]), None)
        now = time.monotonic()
        if ready != self._last_seen:
            self._last_seen, self._settled_at = ready, now + SETTLE_S
        if default is None or ready == self._recorded or now < self._retry_at:
            return
        try:
            with self._state_file.exclusive():
                if now < self._settled_at:
                    return
                self._write(default, ready.keys() - {default}, {each.version for each in loaded})
        except DeploymentError:
            # A deployment is going on, and records its result. The lock is taken at each check, as
            # `versions` may still be those of before the deployment's end.
            self._settled_at = now + SETTLE_S
        except (ArchiveError, OSError) as error:
            log.error("what serves cannot be noted", reason=str(error))
            self._retry_at = now + RETRY_INTERVAL_S
        else:
            self._recorded = ready

    def _write(self, default: str, ready: set[str], loaded: set[str]) -> None:
        """Record the ready versions; one recorded earlier may be loading again at this moment."""
        written = self._state_file.read()
        before = written or DesiredState(self._server.manifest["version"])
        state = before.with_default(default)
        kept = (each for each in state.additional if each in loaded)
        state = replace(state, additional=tuple(dict.fromkeys((*kept, *sorted(ready)))))
        if state != before:
            self._state_file.write(state)
            log.info("what serves was noted", default=state.default, beside=state.additional)
