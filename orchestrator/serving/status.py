"""The status of the model: the versions that TorchServe has loaded."""

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class LoadedVersion:
    """One version of the model in TorchServe, with the metadata that its handler reports.

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
    """Whether the model is ready, and which versions are loaded.

    Attributes:
        ready: whether the default version has a READY worker.
        reason: why it has none; empty if `ready`.
        version, device, codec, checkpoint: of the default version, if `ready`.
        versions: all loaded versions, ready or not.
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
        """Names of all loaded versions."""
        return tuple(each.version for each in self.versions)

    @property
    def capacity(self) -> int:
        """Requests that the default version processes at once; 1 while it is not ready."""
        working = (each.ready * each.batch_size for each in self.versions if each.default)
        return next(working, 0) or 1

    def find(self, version: str) -> LoadedVersion | None:
        """Returns a loaded version by name; None if it is not loaded."""
        return next((loaded for loaded in self.versions if loaded.version == version), None)

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object for other hosts, without the process IDs of this host."""
        document = asdict(self)
        for loaded in document["versions"]:
            del loaded["worker_pids"]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Restores a status from the result of `to_json`, without process IDs."""
        versions = tuple(LoadedVersion(**loaded) for loaded in document["versions"])
        return cls(**document | {"versions": versions})
