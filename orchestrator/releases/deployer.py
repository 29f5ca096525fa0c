"""Changes the default model version without interrupting jobs.

TorchServe loses its registrations when it exits, drops the requests of a version that is
unregistered, and accepts any archive. Therefore a new version has to pass a canary job before it
becomes the default, the old one is drained before it is unloaded, and the desired state is kept in
a file.
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
from orchestrator.releases.draining import uses_at
from orchestrator.serving.management import ManagementClient, RegisteredVersion
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.torchserve_log import WorkerLog
from orchestrator.settings import Settings

LOAD_TIMEOUT_S = 300.0  # startupTimeout of model-config.yaml
DRAIN_TIMEOUT_S = 600.0  # the longest time that a request may take
REGISTRATION_TIMEOUT_S = 5.0  # for a registration whose response was lost or not awaited
LOCK_TIMEOUT_S = 5.0
POLL_S = 1.0
# Consecutive checks, POLL_S apart, that must find a version idle before it is unloaded.
# Orchestrators poll the default version every second, so they may send requests to the old version
# for a moment after the change; the last check counts these requests too.
IDLE_CHECKS = 3

Report = Callable[[str], None]
Undo = list[tuple[str, Callable[[], None]]]


class Deployer:
    """Changes the versions that one TorchServe has loaded.

    Every method raises DeploymentError or ArchiveError on failure.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        tokens = Tokens(settings.key_file, settings.management_url)
        self._settings = settings
        self._report = report
        self._tokens = tokens
        self._management = ManagementClient(tokens)
        self._state_file = DesiredStateFile(settings)
        self._log = WorkerLog(settings.model_server_dir / "logs")

    def deploy(self, version: str, keep_old: bool = False) -> None:
        """Makes a version the default after it has passed a canary job, and unloads the old one.

        A failure before the new version becomes the default changes nothing. A failure while the
        old version is being unloaded leaves both loaded.

        Args:
            version: a version whose archive is in the model store.
            keep_old: whether the old version stays loaded for requests that name it.
        """
        with self._exclusively():
            self._deploy(version, keep_old)

    def rollback(self) -> None:
        """Deploys the most recent earlier default version whose archive still exists."""
        with self._exclusively():
            desired = self._state_file.read()
            # The default version may have just been changed through the management API.
            default = self._default_version().version
            previous = () if desired is None else desired.with_default(default).previous
            archived = [
                each
                for each in previous
                if archive_path(self._state_file.model_store, each).exists()
            ]
            if not archived:
                raise DeploymentError(
                    "there is no version to roll back to: no earlier default version has an "
                    f"archive in {self._state_file.model_store}"
                )
            self._deploy(archived[-1], keep_old=False, is_rollback=True)

    def remove(self, version: str, keep_archive: bool = False) -> None:
        """Unloads a version that is not the default, and deletes its archive."""
        archive = archive_path(self._state_file.model_store, version)
        with self._exclusively():
            loaded = {each.version: each for each in self._management.versions()}
            desired = self._state_file.read()
            if version not in loaded and not archive.exists():
                raise DeploymentError(f"there is no version {version}; see `musiclab model list`")
            if (version in loaded and loaded[version].default) or (
                desired is not None and desired.default == version
            ):
                raise DeploymentError(
                    f"version {version} is the default; deploy another version first"
                )
            if version in loaded and not self._unload(version):
                raise DeploymentError(f"version {version} could not be unloaded yet")
            if desired is not None:
                self._state_file.write(desired.without(version))
            if not keep_archive:
                archive.unlink(missing_ok=True)
                self._report(f"{archive.name} is deleted")

    def _deploy(self, version: str, keep_old: bool, is_rollback: bool = False) -> None:
        archive = archive_path(self._state_file.model_store, version)
        packed = verify_archive(archive)["version"]
        if packed != version:
            raise DeploymentError(f"{archive} contains version {packed}; pack it again")
        old = self._default_version().version
        if old == version:
            self._report(f"version {version} is already the default")
            return
        desired = self._state_while_draining(old, version, is_rollback)
        with self._undo_on_failure() as undo:
            if self._management.find(version) is None:
                undo.append(
                    (f"unload {version}", lambda: self._unregister_once_registered(version))
                )
                self._load(version, archive)
            self._run_canary(version)
            undo.append((f"restore {old} as default", lambda: self._management.set_default(old)))
            self._management.set_default(version)
            self._state_file.write(desired)
        self._report(f"{version} is now the default version; draining {old}")
        if keep_old:
            self._report(f"{old} stays loaded as an additional version")
        elif self._unload(old):
            self._state_file.write(desired.without(old))

    def _state_while_draining(self, old: str, new: str, is_rollback: bool) -> DesiredState:
        """Returns the desired state to record while the old version is drained."""
        try:
            before = self._state_file.read() or DesiredState(old)
        except ArchiveError as error:
            self._report(f"{error}; it will be replaced")
            before = DesiredState(old)
        # The default version may have been changed through the management API.
        desired = before.with_default(old).with_default(new).with_additional(old)
        if is_rollback:  # the next rollback must not return to the version just left
            previous = tuple(each for each in desired.previous if each != old)
            desired = replace(desired, previous=previous)
        return desired

    def _load(self, version: str, archive: Path) -> None:
        since = self._log.position()
        self._management.register(archive.name)
        self._report(f"version {version} is registered; its workers are starting")
        logs = self._settings.model_server_dir / "logs"
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        while True:
            registered = self._management.find(version)
            if registered is not None and registered.ready:
                self._report("a worker is ready")
                return
            if fault := self._log.load_error(version, since):
                raise DeploymentError(f"version {version} did not load: {fault}")
            if registered is None:
                raise DeploymentError(
                    f"version {version} is no longer registered: another client unloaded it, or "
                    f"TorchServe exited; see {logs}"
                )
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"version {version} was not ready after {LOAD_TIMEOUT_S:g} s; see {logs}"
                )
            time.sleep(POLL_S)

    def _run_canary(self, version: str) -> None:
        since = self._log.position()
        try:
            rms = run_canary(self._settings.inference_url, self._tokens, version)
        except DeploymentError as error:
            exception = self._log.first_exception(version, since)
            message = f"{error}; its worker: {exception}" if exception else str(error)
            raise DeploymentError(message) from error
        self._report(f"the canary job passed (root mean square {rms:.3f})")

    def _unload(self, version: str) -> bool:
        """Drains and unregisters a version; returns whether it was unregistered."""
        try:
            reasons = self._drain(version)
            if not reasons:
                self._management.unregister(version)
        except ModelServerError as error:
            if not self._is_unregistered(version):
                reasons = [str(error)]
        except KeyboardInterrupt:
            self._report(_still_loaded(version, ["the wait was interrupted"]))
            raise
        if reasons:
            self._report(_still_loaded(version, reasons))
            return False
        self._report(f"{version} is unloaded")
        return True

    def _drain(self, version: str) -> list[str]:
        """Waits until a version is idle; returns its remaining uses if that takes too long."""
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        idle_checks = 0
        while idle_checks < IDLE_CHECKS:
            time.sleep(POLL_S)
            uses = self._uses(version)
            idle_checks = 0 if uses else idle_checks + 1
            if uses and time.monotonic() > deadline:
                return uses
        return []

    def _uses(self, version: str) -> list[str]:
        uses = []
        try:
            registered = self._management.find(version)
        except ModelServerError as error:
            uses.append(f"the length of TorchServe's queue is unknown: {error}")
        else:
            if registered is not None and registered.pending:
                uses.append(f"{registered.pending} requests are queued in TorchServe")
        for url in self._settings.orchestrator_url_list:
            uses += uses_at(url, version)
        return uses

    def _is_unregistered(self, version: str) -> bool:
        try:
            return self._management.find(version) is None
        except ModelServerError:
            return False

    def _unregister_once_registered(self, version: str) -> None:
        """Unregisters a version whose registration may still be in progress, as after a timeout."""
        deadline = time.monotonic() + REGISTRATION_TIMEOUT_S
        while self._management.find(version) is None:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_S)
        self._management.unregister(version)

    def _default_version(self) -> RegisteredVersion:
        versions = self._management.versions()
        default = next((each for each in versions if each.default), None)
        if default is None:
            raise DeploymentError("TorchServe has no model yet; wait until it is ready")
        return default

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with self._state_file.exclusive(LOCK_TIMEOUT_S):
            try:
                yield
            except ModelServerError as error:
                raise DeploymentError(str(error)) from error

    @contextmanager
    def _undo_on_failure(self) -> Iterator[Undo]:
        """On any exception, runs the undo steps added to the list, in reverse order."""
        undo: Undo = []
        try:
            yield undo
        except BaseException:  # Ctrl-C too
            for description, step in reversed(undo):
                try:
                    step()
                except ModelServerError as error:
                    # TorchServe may have exited; it restarts with the previous desired state.
                    self._report(f"could not {description}: {error}")
            raise


def _still_loaded(version: str, reasons: list[str]) -> str:
    return (
        f"{version} stays loaded: {'; '.join(reasons)}. Run `musiclab model remove {version} "
        "--keep-archive` to unload it later"
    )
