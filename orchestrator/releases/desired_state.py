"""Which versions of the model a TorchServe is to serve: kept on disk, as it forgets them."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Self

from orchestrator.archives.archive import archive_path
from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.settings import Settings

FILE = "wanted.json"
LOCK = "wanted.lock"
REMEMBERED = 10
POLL_S = 0.1


@dataclass(frozen=True)
class DesiredState:
    """The versions that are to serve.

    Attributes:
        default: makes the music of jobs that name no version.
        beside: others that are to be loaded as well.
        previous: defaults of before that, the latest last.
    """

    default: str
    beside: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()

    def with_default(self, version: str) -> Self:
        """Another default, from which one can go back to this one."""
        if version == self.default:
            return self
        before = [each for each in self.previous if each not in (version, self.default)]
        return replace(
            self.without(version), default=version, previous=(*before, self.default)[-REMEMBERED:]
        )

    def with_additional(self, version: str) -> Self:
        """A further version beside the default one."""
        return replace(self.without(version), beside=(*self.without(version).beside, version))

    def without(self, version: str) -> Self:
        """The same, but this version no longer beside the default one."""
        return replace(self, beside=tuple(each for each in self.beside if each != version))


class DesiredStateFile:
    """The file beside a server's keys; it is there once something else serves than what was packed.

    Attributes:
        store: the folder of the archives.
    """

    def __init__(self, settings: Settings) -> None:
        self.store = settings.model_store.resolve()
        self._folder = settings.model_server_dir
        self._file = self._folder / FILE

    def read(self) -> DesiredState | None:
        """What was written last; None when nothing was.

        Raises:
            ArchiveError: the file was changed by hand and cannot be read.
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

    def write(self, wanted: DesiredState) -> None:
        """Replace what was written; who reads at this moment finds the old or the new."""
        part = self._file.with_suffix(".part")
        with part.open("w") as file:
            file.write(json.dumps(asdict(wanted), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the new name without content
        part.replace(self._file)

    def choose(self, version: str) -> None:
        """Want a version alone.

        Raises:
            DeploymentError: another process is changing what serves.
        """
        with self.changing():
            before = self.read()
            chosen = DesiredState(version) if before is None else before.with_default(version)
            self.write(replace(chosen, beside=()))

    def archives(self, wanted: DesiredState | None) -> list[Path]:
        """The archives of what is wanted, the default's first; those that are missing are left out.

        Empty when nothing is, or the default's archive is missing.
        """
        if wanted is None or not archive_path(self.store, wanted.default).exists():
            return []
        found = (archive_path(self.store, each) for each in (wanted.default, *wanted.beside))
        return [archive for archive in found if archive.exists()]

    @contextmanager
    def changing(self, patience_s: float = 0.0) -> Iterator[None]:
        """Be the only one who changes what serves.

        Raises:
            DeploymentError: another process is at it, and was so for `patience_s` seconds.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience_s
        with (self._folder / LOCK).open("w") as lock:
            while not _is_locked(lock):
                if time.monotonic() >= deadline:
                    raise DeploymentError(
                        "another command is changing what serves at this moment; wait for its end"
                    )
                time.sleep(POLL_S)
            yield


def _is_locked(lock: IO[str]) -> bool:
    """Whether we have the lock by now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
