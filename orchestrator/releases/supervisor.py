"""Keeps TorchServe running with the versions that are wanted."""

import time
from collections.abc import Iterable
from dataclasses import replace

import structlog

from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from orchestrator.serving.management import RegisteredVersion
from orchestrator.serving.process import TorchServe
from orchestrator.serving.status import LoadedVersion

SETTLED_S = 3.0
TRIED_AGAIN_S = 60.0

log = structlog.get_logger()


class Supervisor:
    """Looks after one TorchServe."""

    def __init__(self, server: TorchServe) -> None:
        self._server = server
        self._wanted = DesiredStateFile(server.settings)
        self._noted = self._seen = {server.manifest["version"]: True}
        self._settled_at = 0.0
        self._tried_again_at = 0.0

    def start_again_if_ended(self) -> None:
        """Start TorchServe again where it ended by itself, which it should not.

        What was changed since its start it has forgotten, hence what is wanted by now.
        """
        if self._server.is_running():
            return
        log.warning("TorchServe ended; it is started again")
        self._server.stop()
        try:
            if archives := self._wanted.archives(self._wanted.read()):
                self._server.serve_next(*archives)
        except ArchiveError as error:
            log.error("what served before serves again", reason=str(error))
        self._server.start()

    def note(self, versions: Iterable[LoadedVersion | RegisteredVersion]) -> None:
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
