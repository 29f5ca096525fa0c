"""Keeps TorchServe running with the versions that are wanted."""

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
SETTLED_S = 3.0
TRIED_AGAIN_S = 60.0

Versions = Iterable[LoadedVersion | RegisteredVersion]

log = structlog.get_logger()


class Supervisor:
    """Restarts one TorchServe whenever it exits, and records what it serves.

    All methods block: they read archives of hundreds of megabytes and wait for ports. `stop` may
    be called from any thread, the others from one.
    """

    def __init__(self, server: TorchServe) -> None:
        self._server = server
        self._wanted = DesiredStateFile(server.settings)
        self._noted = self._seen = {server.manifest["version"]: True}
        self._settled_at = 0.0
        self._tried_again_at = 0.0
        self._stopped = Event()
        # Held to start or stop TorchServe, not to read archives, which may take any time.
        self._starting = Lock()

    def run(self, served: Callable[[], Versions], record_every: int = 1) -> None:
        """Supervise TorchServe, which was started before, until `stop`.

        The calling thread restarts TorchServe and therefore has to outlast it: see
        `TorchServe.start`.

        Args:
            served: returns the versions that TorchServe serves now.
            record_every: how many checks of the process there are to one of the versions.

        Raises:
            ModelServerError: TorchServe exited and could not be restarted.
        """
        checks = 0
        while not self._stopped.wait(CHECK_INTERVAL_S):
            self.start_again_if_ended()
            if checks % record_every == 0:
                self.note(served())
            checks += 1

    def stop(self) -> None:
        """End TorchServe for good, whatever state a restart is in.

        Waits for a restart only while that starts the process, which takes a few seconds at most.
        """
        self._stopped.set()
        with self._starting:
            self._server.stop()

    def start_again_if_ended(self) -> None:
        """Start TorchServe again where it ended by itself, which it should not.

        What was changed since its start it has forgotten, hence what is wanted by now.
        """
        with self._starting:
            if self._stopped.is_set() or self._server.is_running():
                return
            log.warning("TorchServe ended; it is started again")
            self._server.stop()
        try:
            if archives := self._wanted.archives(self._wanted.read()):
                self._server.serve_next(*archives)
        except ArchiveError as error:
            log.error("what served before serves again", reason=str(error))
        with self._starting:
            if not self._stopped.is_set():
                self._server.start()

    def note(self, versions: Versions) -> None:
        """Write down what serves, so that what was changed without `musiclab model` stays as well.

        A version that is not ready is not noted: it may be one that cannot be loaded.
        """
        loaded = list(versions)
        ready = {each.version: each.default for each in loaded if each.ready}
        default = next((version for version in ready if ready[version]), None)
        now = time.monotonic()
        if ready != self._seen:
            self._seen, self._settled_at = ready, now + SETTLED_S
        if default is None or ready == self._noted or now < self._tried_again_at:
            return
        try:
            with self._wanted.changing():
                if now < self._settled_at:
                    return
                self._write(default, ready.keys() - {default}, {each.version for each in loaded})
        except DeploymentError:
            # A deployment is going on, and writes down what comes of it. Looked for each time: what
            # is seen here may be of before its end for as long as a look at TorchServe takes.
            self._settled_at = now + SETTLED_S
        except (ArchiveError, OSError) as error:
            log.error("what serves cannot be noted", reason=str(error))
            self._tried_again_at = now + TRIED_AGAIN_S
        else:
            self._noted = ready

    def _write(self, default: str, ready: set[str], loaded: set[str]) -> None:
        """Note the default and the others; one noted earlier may be starting again just now."""
        written = self._wanted.read()
        before = written or DesiredState(self._server.manifest["version"])
        wanted = before.with_default(default)
        beside = (each for each in wanted.beside if each in loaded)
        wanted = replace(wanted, beside=tuple(dict.fromkeys((*beside, *sorted(ready)))))
        if wanted != before:
            self._wanted.write(wanted)
            log.info("what serves was noted", default=wanted.default, beside=wanted.beside)
