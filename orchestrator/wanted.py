"""Which versions of the model are to serve: kept in the model store, as TorchServe forgets them."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.model_versions import archive_of

FILE = "wanted.json"
LOCK = ".wanted.lock"
REMEMBERED = 10


@dataclass(frozen=True)
class Wanted:
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

    def with_beside(self, version: str) -> Self:
        """A further version beside the default one."""
        return replace(self.without(version), beside=(*self.without(version).beside, version))

    def without(self, version: str) -> Self:
        """The same, but this version no longer beside the default one."""
        return replace(self, beside=tuple(each for each in self.beside if each != version))


class WantedVersions:
    """The file in a model store; it is there once something else serves than what was packed."""

    def __init__(self, store: Path) -> None:
        self.store = store.resolve()
        self._file = self.store / FILE

    def read(self) -> Wanted | None:
        """What was written last; None when nothing was.

        Raises:
            ArchiveError: the file was changed by hand and cannot be read.
        """
        try:
            content = json.loads(self._file.read_text())
            return Wanted(content["default"], tuple(content["beside"]), tuple(content["previous"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(
                f"{self._file} cannot be read ({error!r}); delete it to serve what is in "
                "checkpoints/, or deploy a version again"
            ) from error

    def write(self, wanted: Wanted) -> None:
        """Replace what was written; who reads at this moment finds the old or the new."""
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(asdict(wanted), indent=2) + "\n")
        part.replace(self._file)

    def forget(self) -> None:
        """Want nothing else than what is packed of checkpoints/."""
        self._file.unlink(missing_ok=True)

    def archives(self) -> list[Path]:
        """The archives of what is wanted, the default's first; those that are missing are left out.

        Empty when nothing was written, or the default's archive is missing.
        """
        wanted = self.read()
        if wanted is None or not archive_of(self.store, wanted.default).exists():
            return []
        found = (archive_of(self.store, each) for each in (wanted.default, *wanted.beside))
        return [archive for archive in found if archive.exists()]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who changes what serves.

        Raises:
            DeploymentError: another process is at it.
        """
        self.store.mkdir(parents=True, exist_ok=True)
        with (self.store / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DeploymentError(
                    "another command is changing what serves at this moment; wait for it to end"
                ) from None
            yield
