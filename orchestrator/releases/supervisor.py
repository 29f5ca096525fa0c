"""Keeps TorchServe running with the desired versions, and records the versions it has loaded."""

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
    """Restarts one TorchServe whenever it exits, and records the versions it has loaded.

    All methods except `request_stop` block: they read archives of hundreds of megabytes and wait
    for ports. `request_stop` and `stop` may be called from any thread, the others from one thread.
    """

    def __init__(self, server: TorchServe) -> None:
        self._server = server
        self._state_file = DesiredStateFile(server.settings)
        self._recorded = self._last_seen = {server.manifest["version"]: True}
        self._settled_at = 0.0
        self._retry_at = 0.0
        self._stopped = Event()
        # Held while TorchServe is started or stopped, but not while archives are read, which may
        # take very long.
        self._starting = Lock()

    def run(self, loaded: Callable[[], Versions | None], record_every: int = 1) -> None:
        """Supervises a TorchServe that has been started, until `stop`.

        The calling thread restarts TorchServe, so it has to run at least as long as TorchServe: see
        `TorchServe.start`.

        Args:
            loaded: returns the versions that TorchServe has loaded; None if it is unreachable.
            record_every: number of process checks per check of the versions.

        Raises:
            ModelServerError: TorchServe exited and could not be restarted.
        """
        checks = 0
        while not self._stopped.wait(CHECK_INTERVAL_S):
            self.restart_if_exited()
            if checks % record_every == 0 and (versions := loaded()) is not None:
                self.record_loaded_versions(versions)
            checks += 1

    def request_stop(self) -> None:
        """Ends supervision; TorchServe keeps running."""
        self._stopped.set()

    def stop(self) -> None:
        """Stops TorchServe permanently, even during a restart.

        Waits for a restart only while it starts the process, which takes a few seconds at most.
        """
        self._stopped.set()
        with self._starting:
            self._server.stop()

    def restart_if_exited(self) -> None:
        """Restarts TorchServe if its process has exited.

        Reads the desired versions again because TorchServe has lost its registrations.

        Raises:
            ModelServerError: TorchServe could not be started.
        """
        with self._starting:
            if self._stopped.is_set() or self._server.is_running():
                return
            log.warning("TorchServe exited; restarting it")
            self._server.stop()
        try:
            if archives := self._state_file.archives(self._state_file.read()):
                self._server.set_archives(*archives)
        except ArchiveError as error:
            log.error("restarting with the versions of the last start", reason=str(error))
        with self._starting:
            if not self._stopped.is_set():
                self._server.start()

    def record_loaded_versions(self, versions: Versions) -> None:
        """Records the loaded versions, including changes made without `musiclab model`.

        A version that is not ready is not recorded, as it may be one that cannot be loaded. Changes
        less than SETTLE_S seconds old are not recorded either.
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
            # A deployment is in progress and will record its result. Versions read
            # before it ended may be outdated, so the settling time starts again.
            self._settled_at = now + SETTLE_S
        except (ArchiveError, OSError) as error:
            log.error("loaded versions could not be recorded", reason=str(error))
            self._retry_at = now + RETRY_INTERVAL_S
        else:
            self._recorded = ready

    def _write(self, default: str, ready: set[str], loaded: set[str]) -> None:
        """Records the ready versions; keeps those recorded earlier that are still registered."""
        written = self._state_file.read()
        before = written or DesiredState(self._server.manifest["version"])
        state = before.with_default(default)
        kept = (each for each in state.additional if each in loaded)
        state = replace(state, additional=tuple(dict.fromkeys((*kept, *sorted(ready)))))
        if state != before:
            self._state_file.write(state)
            log.info("loaded versions recorded", default=state.default, additional=state.additional)
