"""Changes which version of the model serves, while jobs go on.

TorchServe forgets what was registered, drops what a version is working on when it is unregistered,
and takes any archive for good. So a version is heard before users hear it, the old one ends when
nobody is waiting for it, and what is wanted is written down.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from orchestrator.archives.archive import archive_path, verify_archive
from orchestrator.errors import ArchiveError, DeploymentError, ModelServerError
from orchestrator.releases.canary import run_canary
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from orchestrator.releases.in_flight import users_of
from orchestrator.serving.management import ManagementClient, RegisteredVersion
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.worker_log import WorkerLog
from orchestrator.settings import Settings

LOADED_WITHIN_S = 300.0  # startupTimeout of model-config.yaml
DRAINED_WITHIN_S = 600.0  # the longest that a request may take
REGISTERED_WITHIN_S = 5.0  # by a request whose answer was not waited for
PATIENCE_S = 5.0
POLL_S = 1.0
# Orchestrators look every second which version is the default; what they had sent to the old one
# before they knew is seen by then.
QUIET_LOOKS = 3

Say = Callable[[str], None]
Undo = list[tuple[str, Callable[[], None]]]


class Deployer:
    """Changes what one TorchServe serves.

    Every method raises DeploymentError, or ArchiveError, when it cannot do what it says.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        tokens = Tokens(settings.key_file, settings.management_url)
        self._settings = settings
        self._say = say
        self._tokens = tokens
        self._management = ManagementClient(tokens)
        self._wanted = DesiredStateFile(settings)
        self._log = WorkerLog(settings.model_server_dir / "logs")

    def deploy(self, version: str, keep_old: bool = False) -> None:
        """Let a version of the store serve, once it has proved that it can.

        Where that fails, everything is as before. From the moment on when it serves, there is only
        the old version left to be unloaded, which a failure leaves loaded.

        Args:
            version: has its archive in the model store.
            keep_old: whether the version that served goes on beside it, for those who name it.
        """
        with self._alone():
            self._deploy(version, keep_old)

    def rollback(self) -> None:
        """Let the version serve again that served before."""
        with self._alone():
            wanted = self._wanted.read()
            # Somebody may have chosen the default without us, a moment ago.
            default = self._default().version
            previous = () if wanted is None else wanted.with_default(default).previous
            there = [each for each in previous if archive_path(self._wanted.store, each).exists()]
            if not there:
                raise DeploymentError(
                    "there is no version to go back to: none served before, or their archives are "
                    f"no longer in {self._wanted.store}"
                )
            self._deploy(there[-1], keep_old=False, going_back=True)

    def remove(self, version: str, keep_archive: bool = False) -> None:
        """End a version that serves beside the default one, and delete its archive."""
        archive = archive_path(self._wanted.store, version)
        with self._alone():
            loaded = {each.version: each for each in self._management.versions()}
            wanted = self._wanted.read()
            if version not in loaded and not archive.exists():
                raise DeploymentError(f"there is no version {version}: `musiclab model list`")
            if (version in loaded and loaded[version].default) or (
                wanted is not None and wanted.default == version
            ):
                raise DeploymentError(
                    f"version {version} is the one that serves; deploy another one first"
                )
            if version in loaded and not self._end(version):
                raise DeploymentError(f"version {version} could not be unloaded yet")
            if wanted is not None:
                self._wanted.write(wanted.without(version))
            if not keep_archive:
                archive.unlink(missing_ok=True)
                self._say(f"{archive.name} is deleted")

    def _deploy(self, version: str, keep_old: bool, going_back: bool = False) -> None:
        archive = archive_path(self._wanted.store, version)
        named = verify_archive(archive)["version"]
        if named != version:
            raise DeploymentError(f"{archive} says that it is version {named}; pack it anew")
        old = self._default().version
        if old == version:
            self._say(f"version {version} serves already")
            return
        wanted = self._wanted_while_draining(old, version, going_back)
        with self._undone_on_failure() as undo:
            if self._management.find(version) is None:
                undo.append((f"unload {version}", lambda: self._unregister_soon(version)))
                self._load(version, archive)
            self._try(version)
            undo.append((f"let {old} serve", lambda: self._management.set_default(old)))
            self._management.set_default(version)
            self._wanted.write(wanted)
        self._say(f"{version} serves now; {old} ends what it has begun")
        if keep_old:
            self._say(f"{old} stays loaded beside it")
        elif self._end(old):
            self._wanted.write(wanted.without(old))

    def _wanted_while_draining(self, old: str, new: str, going_back: bool) -> DesiredState:
        """What is wanted once the new version serves and the old one is still loaded."""
        try:
            before = self._wanted.read() or DesiredState(old)
        except ArchiveError as error:
            self._say(f"{error}; it is written anew")
            before = DesiredState(old)
        # Somebody may have chosen the default without us.
        wanted = before.with_default(old).with_default(new).with_additional(old)
        if going_back:  # what is left so need not be gone back to: the next time goes further back
            previous = tuple(each for each in wanted.previous if each != old)
            wanted = replace(wanted, previous=previous)
        return wanted

    def _load(self, version: str, archive: Path) -> None:
        since = self._log.position()
        self._management.register(archive.name)
        self._say(f"version {version} is registered; its workers are starting")
        logs = self._settings.model_server_dir / "logs"
        deadline = time.monotonic() + LOADED_WITHIN_S
        while True:
            registered = self._management.find(version)
            if registered is not None and registered.ready:
                self._say("a worker is ready")
                return
            if fault := self._log.load_error(version, since):
                raise DeploymentError(f"version {version} did not load: {fault}")
            if registered is None:
                raise DeploymentError(
                    f"version {version} is gone: somebody else unloaded it, or TorchServe has "
                    f"ended; see {logs}"
                )
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"version {version} was not ready after {LOADED_WITHIN_S:g} s; see {logs}"
                )
            time.sleep(POLL_S)

    def _try(self, version: str) -> None:
        since = self._log.position()
        try:
            loudness = run_canary(self._settings.inference_url, self._tokens, version)
        except DeploymentError as error:
            raised = self._log.raised(version, since)
            said = f"{error}; its worker: {raised}" if raised else str(error)
            raise DeploymentError(said) from error
        self._say(f"it made music of the canary job (root mean square {loudness:.3f})")

    def _end(self, version: str) -> bool:
        """Unregister a version when nobody waits for it; False when it had to stay loaded."""
        try:
            why = self._drain(version)
            if not why:
                self._management.unregister(version)
        except ModelServerError as error:
            if not self._is_gone(version):
                why = [str(error)]
        except KeyboardInterrupt:
            self._say(_stays(version, ["you stopped waiting"]))
            raise
        if why:
            self._say(_stays(version, why))
            return False
        self._say(f"{version} is unloaded")
        return True

    def _drain(self, version: str) -> list[str]:
        """Wait until nobody uses a version; returns who still does when that takes too long."""
        deadline = time.monotonic() + DRAINED_WITHIN_S
        quiet = 0
        while quiet < QUIET_LOOKS:
            time.sleep(POLL_S)
            users = self._users(version)
            quiet = 0 if users else quiet + 1
            if users and time.monotonic() > deadline:
                return users
        return []

    def _users(self, version: str) -> list[str]:
        users = []
        try:
            registered = self._management.find(version)
        except ModelServerError as error:
            users.append(f"TorchServe does not say what it works on: {error}")
        else:
            if registered is not None and registered.pending:
                users.append(f"{registered.pending} requests wait in TorchServe")
        for url in self._settings.orchestrator_url_list:
            users += users_of(url, version)
        return users

    def _is_gone(self, version: str) -> bool:
        try:
            return self._management.find(version) is None
        except ModelServerError:
            return False

    def _unregister_soon(self, version: str) -> None:
        """Unregister what may be about to be registered: its request may have been cut off."""
        deadline = time.monotonic() + REGISTERED_WITHIN_S
        while self._management.find(version) is None:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_S)
        self._management.unregister(version)

    def _default(self) -> RegisteredVersion:
        versions = self._management.versions()
        default = next((each for each in versions if each.default), None)
        if default is None:
            raise DeploymentError("TorchServe has no model yet; wait until it is ready")
        return default

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._wanted.changing(PATIENCE_S):
            try:
                yield
            except ModelServerError as error:
                raise DeploymentError(str(error)) from error

    @contextmanager
    def _undone_on_failure(self) -> Iterator[Undo]:
        """Where a step fails, take back those before it: run what is listed, the last first."""
        undo: Undo = []
        try:
            yield undo
        except BaseException:  # Ctrl-C too
            for what, step in reversed(undo):
                try:
                    step()
                except ModelServerError as error:
                    # TorchServe may have ended: then it comes back with what was wanted before.
                    self._say(f"could not {what}: {error}")
            raise


def _stays(version: str, why: list[str]) -> str:
    return (
        f"{version} stays loaded: {'; '.join(why)}. `musiclab model remove {version} "
        "--keep-archive` ends it later"
    )
