"""The model versions that a TorchServe should have loaded, kept on disk.

TorchServe loses its registrations when it exits.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from orchestrator.archives.archive import archive_path
from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.filesystem import atomic_write, lock
from orchestrator.settings import Settings

FILE = "wanted.json"
LOCK = "wanted.lock"
MAX_PREVIOUS = 10


@dataclass(frozen=True)
class DesiredState:
    """The versions to load.

    Attributes:
        default: version for requests that name none.
        additional: other versions to load.
        previous: earlier default versions, the most recent last.
    """

    default: str
    additional: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()

    def with_default(self, version: str) -> Self:
        """Returns a copy with another default version; appends the current one to `previous`."""
        if version == self.default:
            return self
        before = [each for each in self.previous if each not in (version, self.default)]
        return replace(
            self.without(version), default=version, previous=(*before, self.default)[-MAX_PREVIOUS:]
        )

    def with_additional(self, version: str) -> Self:
        """Returns a copy with one more additional version."""
        others = self.without(version).additional
        return replace(self, additional=(*others, version))

    def without(self, version: str) -> Self:
        """Returns a copy without an additional version."""
        return replace(self, additional=tuple(each for each in self.additional if each != version))


class DesiredStateFile:
    """The file of the desired state, in the directory of TorchServe's keys.

    The file does not exist until a version is deployed, served from a given archive, or loaded
    through the management API. Its keys are `default`, `beside` (the additional versions) and
    `previous`.

    Attributes:
        model_store: directory of the archives.
    """

    def __init__(self, settings: Settings) -> None:
        self.model_store = settings.model_store.resolve()
        self._folder = settings.model_server_dir
        self._file = self._folder / FILE

    def read(self) -> DesiredState | None:
        """Returns the state written last; None if the file does not exist.

        Raises:
            ArchiveError: the content is invalid, for example after a manual edit.
        """
        try:
            content = json.loads(self._file.read_text())
            return DesiredState(
                content["default"], tuple(content["beside"]), tuple(content["previous"])
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(
                f"{self._file} cannot be read ({error!r}); deploy a version, or delete the file to "
                "use the weights in checkpoints/"
            ) from error

    def write(self, state: DesiredState) -> None:
        """Replaces the file atomically: readers see the old state or the new one."""
        content = {
            "default": state.default,
            "beside": state.additional,
            "previous": state.previous,
        }
        # Durable: otherwise a power failure may leave an empty file under the new name.
        with atomic_write(self._file, durable=True) as part:
            part.write_text(json.dumps(content, indent=2) + "\n")

    def set_default(self, version: str) -> None:
        """Makes a version the default and drops the additional ones.

        Raises:
            DeploymentError: another process is changing the deployed versions.
        """
        with self.exclusive():
            before = self.read()
            state = DesiredState(version) if before is None else before.with_default(version)
            self.write(replace(state, additional=()))

    def archives(self, state: DesiredState | None) -> list[Path]:
        """Returns the existing archives of a state, that of the default version first.

        Empty if there is no state, or if the default version's archive is missing.
        """
        if state is None or not archive_path(self.model_store, state.default).exists():
            return []
        versions = (state.default, *state.additional)
        paths = (archive_path(self.model_store, each) for each in versions)
        return [path for path in paths if path.exists()]

    @contextmanager
    def exclusive(self, timeout_s: float = 0.0) -> Iterator[None]:
        """Holds the lock that protects changes to the deployed versions.

        Raises:
            DeploymentError: another process still held the lock after `timeout_s` seconds.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("w") as file:
            if not lock(file, timeout_s):
                raise DeploymentError(
                    "another command is changing the deployed versions; wait until it finishes"
                )
            yield
