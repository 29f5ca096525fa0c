"""What a TorchServe serves, as one value."""

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class LoadedVersion:
    """One version of the model in TorchServe, and what its handler says of itself.

    Attributes:
        default, workers, ready, worker_pids, batch_size: as in RegisteredVersion.
        device: "cpu", or "cuda0" and so on; None while no worker is READY.
        codec: "official" or "starter".
        checkpoint: "trained" or "starter".
    """

    version: str
    default: bool
    workers: int
    ready: int
    device: str | None = None
    codec: str | None = None
    checkpoint: str | None = None
    worker_pids: frozenset[int] = frozenset()
    batch_size: int = 1


@dataclass(frozen=True)
class ModelStatus:
    """What serves.

    Attributes:
        ready: whether the default version has a READY worker.
        reason: why it has none; empty when `ready`.
        version, device, codec, checkpoint: of the default version, when `ready`.
        versions: all that are loaded, ready or not.
    """

    ready: bool
    reason: str = ""
    version: str | None = None
    device: str | None = None
    codec: str | None = None
    checkpoint: str | None = None
    versions: tuple[LoadedVersion, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all versions that are loaded."""
        return tuple(each.version for each in self.versions)

    @property
    def capacity(self) -> int:
        """Requests that the default version works on at once, or 1 while it is not ready."""
        working = (each.ready * each.batch_size for each in self.versions if each.default)
        return next(working, 0) or 1

    def find(self, version: str) -> LoadedVersion | None:
        """A loaded version; None if it is not there."""
        return next((loaded for loaded in self.versions if loaded.version == version), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object for other hosts, to whom the process ids here mean nothing."""
        document = asdict(self)
        for loaded in document["versions"]:
            del loaded["worker_pids"]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The status of which `to_json` made this, without the process ids."""
        versions = tuple(LoadedVersion(**loaded) for loaded in document["versions"])
        return cls(**document | {"versions": versions})
