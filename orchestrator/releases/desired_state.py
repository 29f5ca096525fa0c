"""The versions of the model that a TorchServe has to serve, kept on disk.

TorchServe itself forgets at its end which versions were registered.
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
    """The versions to serve.

    Attributes:
        default: serves requests that name no version.
        additional: other versions to load.
        previous: earlier default versions, the latest last.
    """

    default: str
    additional: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()

    def with_default(self, version: str) -> Self:
        """Another default version; the present one is appended to `previous`."""
        if version == self.default:
            return self
        before = [each for each in self.previous if each not in (version, self.default)]
        return replace(
            self.without(version), default=version, previous=(*before, self.default)[-MAX_PREVIOUS:]
        )

    def with_additional(self, version: str) -> Self:
        """The same with one more additional version."""
        others = self.without(version).additional
        return replace(self, additional=(*others, version))

    def without(self, version: str) -> Self:
        """The same without that additional version."""
        return replace(self, additional=tuple(each for each in self.additional if each != version))


class DesiredStateFile:
    """The file of the desired state, next to TorchServe's keys.

    It exists once another version was served than the one packed from checkpoints/. Its keys are
    `default`, `beside` (the additional versions) and `previous`.

    Attributes:
        model_store: the folder of the archives.
    """

    def __init__(self, settings: Settings) -> None:
        self.model_store = settings.model_store.resolve()
        self._folder = settings.model_server_dir
        self._file = self._folder / FILE

    def read(self) -> DesiredState | None:
        """The state written last; None without a file.

        Raises:
            ArchiveError: the file cannot be read, as when it was edited by hand.
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
                "serve what is in checkpoints/"
            ) from error

    def write(self, state: DesiredState) -> None:
        """Replace the file atomically: readers see the old state or the new one."""
        content = {
            "default": state.default,
            "beside": state.additional,
            "previous": state.previous,
        }
        # Durable: else a power failure may leave the new name without content.
        with atomic_write(self._file, durable=True) as part:
            part.write_text(json.dumps(content, indent=2) + "\n")

    def set_default(self, version: str) -> None:
        """Make a version the default one and drop the additional ones.

        Raises:
            DeploymentError: another process is changing what serves.
        """
        with self.exclusive():
            before = self.read()
            state = DesiredState(version) if before is None else before.with_default(version)
            self.write(replace(state, additional=()))

    def archives(self, state: DesiredState | None) -> list[Path]:
        """The archives of a state that exist, the default version's first.

        Empty without a state, and where the default version's archive is missing.
        """
        if state is None or not archive_path(self.model_store, state.default).exists():
            return []
        versions = (state.default, *state.additional)
        paths = (archive_path(self.model_store, each) for each in versions)
        return [path for path in paths if path.exists()]

    @contextmanager
    def exclusive(self, timeout_s: float = 0.0) -> Iterator[None]:
        """Hold the lock that everybody takes who changes what serves.

        Raises:
            DeploymentError: another process still held it after `timeout_s` seconds.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("w") as file:
            if not lock(file, timeout_s):
                raise DeploymentError(
                    "another command is changing what serves at this moment; wait for its end"
                )
            yield
