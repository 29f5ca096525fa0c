"""Changes which version of the model serves, while jobs go on.

TorchServe forgets what was registered, drops what a version is working on when it is unregistered,
and takes any archive for good. So a version is heard before users hear it, the old one ends when
nobody is waiting for it, and what is wanted is written down.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import requests

from orchestrator.canary import try_version
from orchestrator.drain import users_of
from orchestrator.errors import DeploymentError, ModelServerError
from orchestrator.management import ManagementClient, RegisteredVersion
from orchestrator.model_keys import Keys
from orchestrator.model_log import ModelLog
from orchestrator.model_versions import archive_of, check_archive
from orchestrator.settings import Settings
from orchestrator.wanted import Wanted, WantedVersions

LOADED_WITHIN_S = 300.0  # startupTimeout of model-config.yaml
DRAINED_WITHIN_S = 600.0  # the longest that a request may take
POLL_S = 1.0
# Orchestrators look every second which version is the default; what they had sent to the old one
# before they knew is seen by then.
QUIET_LOOKS = 3

Say = Callable[[str], None]


class Deployment:
    """Changes what one TorchServe serves.

    Every method raises DeploymentError when it cannot do what it says; then the versions serve that
    served before.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        keys = Keys(settings.key_file, settings.management_url)
        self._settings = settings
        self._say = say
        self._keys = keys
        self._management = ManagementClient(keys)
        self._wanted = WantedVersions(settings.model_store)
        self._log = ModelLog(settings.model_server_dir / "logs")

    def deploy(self, version: str, keep_old: bool = False) -> None:
        """Let a version of the store serve, once it has proved that it can.

        Args:
            version: has its archive in the model store.
            keep_old: whether the version that served goes on beside it, for those who name it.
        """
        with self._alone():
            self._deploy(version, keep_old)

    def rollback(self) -> str:
        """Let the version serve again that served before; returns which one that is."""
        with self._alone():
            wanted = self._wanted.read()
            previous = () if wanted is None else wanted.previous
            there = [each for each in previous if archive_of(self._wanted.store, each).exists()]
            if not there:
                raise DeploymentError(
                    "there is no version to go back to: none served before, or their archives are "
                    f"no longer in {self._wanted.store}"
                )
            version = there[-1]
            left = self._default().version
            self._deploy(version, keep_old=False)
            # What was left need not be gone back to: a second rollback goes further back.
            if (wanted := self._wanted.read()) is not None:
                before = tuple(each for each in wanted.previous if each != left)
                self._wanted.write(replace(wanted, previous=before))
            return version

    def remove(self, version: str, keep_archive: bool = False) -> None:
        """End a version that serves beside the default one, and delete its archive."""
        archive = archive_of(self._wanted.store, version)
        with self._alone():
            loaded = {each.version: each for each in self._management.versions()}
            if version not in loaded and not archive.exists():
                raise DeploymentError(f"there is no version {version}: `musiclab model list`")
            if version in loaded:
                if loaded[version].default:
                    raise DeploymentError(
                        f"version {version} is the one that serves; deploy another one first"
                    )
                if not self._end(version):
                    return
            if (wanted := self._wanted.read()) is not None:
                self._wanted.write(wanted.without(version))
            if not keep_archive:
                archive.unlink(missing_ok=True)
                self._say(f"{archive.name} is deleted")

    def _deploy(self, version: str, keep_old: bool) -> None:
        archive = archive_of(self._wanted.store, version)
        named = check_archive(archive)["version"]
        if named != version:
            raise DeploymentError(f"{archive} says that it is version {named}; pack it anew")
        old = self._default()
        if old.version == version:
            self._say(f"version {version} serves already")
            return
        before = self._wanted.read()
        # Somebody may have chosen the default without us.
        wanted = Wanted(old.version) if before is None else before.with_default(old.version)
        with self._undone_on_failure() as undo:
            if self._management.find(version) is None:
                undo.append(lambda: self._management.unregister(version))
                self._load(version, archive)
            self._try(version)
            undo.append(lambda: self._management.set_default(old.version))
            self._management.set_default(version)
            undo.append(lambda: self._restore(before))
            both = wanted.with_default(version).with_beside(old.version)
            self._wanted.write(both)
            self._say(f"{version} serves now; {old.version} ends what it has begun")
        if keep_old:
            self._say(f"{old.version} stays loaded beside it")
        elif self._end(old.version):
            self._wanted.write(both.without(old.version))

    def _load(self, version: str, archive: Path) -> None:
        since = self._log.position()
        self._management.register(archive.name)
        self._say(f"version {version} is registered; its workers are starting")
        deadline = time.monotonic() + LOADED_WITHIN_S
        while True:
            registered = self._management.find(version)
            if registered is not None and registered.ready:
                self._say("a worker is ready")
                return
            if fault := self._log.load_fault(version, since):
                raise DeploymentError(f"version {version} did not load: {fault}")
            if registered is None or time.monotonic() > deadline:
                raise DeploymentError(
                    f"version {version} was not ready after {LOADED_WITHIN_S:g} s; see "
                    f"{self._settings.model_server_dir / 'logs'}"
                )
            time.sleep(POLL_S)

    def _try(self, version: str) -> None:
        since = self._log.position()
        try:
            loudness = try_version(self._settings.inference_url, self._keys, version)
        except DeploymentError as error:
            raised = self._log.raised(version, since)
            raise DeploymentError(
                f"{error}; its worker: {raised}" if raised else str(error)
            ) from error
        self._say(f"it made music of the canary job (root mean square {loudness:.3f})")

    def _end(self, version: str) -> bool:
        """Unregister a version when nobody waits for it; False when that takes too long."""
        deadline = time.monotonic() + DRAINED_WITHIN_S
        quiet = 0
        while quiet < QUIET_LOOKS:
            time.sleep(POLL_S)
            users = self._users(version)
            quiet = 0 if users else quiet + 1
            if users and time.monotonic() > deadline:
                self._say(
                    f"{version} stays loaded: {'; '.join(users)}. `musiclab model remove {version} "
                    "--keep-archive` ends it later"
                )
                return False
        self._management.unregister(version)
        self._say(f"{version} is unloaded")
        return True

    def _users(self, version: str) -> list[str]:
        registered = self._management.find(version)
        if registered is None:
            return []
        users = [] if not registered.pending else [f"{registered.pending} requests in TorchServe"]
        for url in self._settings.orchestrator_url_list:
            users += users_of(url, version)
        return users

    def _default(self) -> RegisteredVersion:
        versions = self._management.versions()
        default = next((each for each in versions if each.default), None)
        if default is None:
            raise DeploymentError("TorchServe has no model yet; wait until it is ready")
        return default

    def _restore(self, before: Wanted | None) -> None:
        if before is None:
            self._wanted.forget()
        else:
            self._wanted.write(before)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._wanted.changing():
            try:
                yield
            except ModelServerError as error:
                raise DeploymentError(str(error)) from error
            except requests.RequestException as error:
                raise DeploymentError(
                    f"TorchServe does not answer at {self._settings.management_url}; start it with "
                    "`musiclab up` or `musiclab serve-model`"
                ) from error

    @contextmanager
    def _undone_on_failure(self) -> Iterator[list[Callable[[], None]]]:
        """Where a step fails, take back those before it: run what is listed, the last first."""
        undo: list[Callable[[], None]] = []
        try:
            yield undo
        except BaseException:  # Ctrl-C too
            for step in reversed(undo):
                # It may be what failed, or TorchServe is away: then it comes back as it was.
                with suppress(ModelServerError, requests.RequestException):
                    step()
            raise
