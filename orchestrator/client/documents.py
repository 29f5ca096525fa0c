"""The API's JSON documents as values."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Status:
    """A job's status as the API tells it; what it does not tell is None.

    Attributes:
        progress: 0 to 100; never goes back.
        attempts: how often it was tried to an end.
        model_version, codec: what makes the music, once that is known.
        timings: seconds by stage.
        queue_position: 1 is the next; only while queued.
        eta_seconds: until the music is there, about.
        error_code: only when failed.
        expires_at: until when it is kept at least; only when completed or failed.
    """

    job_id: str
    status: Literal["queued", "running", "completed", "failed"]
    progress: int
    message: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    model_version: str | None
    codec: str | None
    timings: dict[str, float]
    queue_position: int | None
    eta_seconds: float | None
    error_code: str | None
    expires_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether it is the job's last one."""
        return self.status in ("completed", "failed")

    @classmethod
    def read(cls, document: dict[str, Any]) -> Self:
        """The status in a JSON document."""
        known: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
        for name in ("created_at", "started_at", "finished_at", "expires_at"):
            if known[name] is not None:
                known[name] = datetime.fromisoformat(known[name])
        return cls(**known)


@dataclass(frozen=True)
class Model:
    """A loaded version of the model.

    Attributes:
        default: whether it makes the music of those who name no version.
        workers, workers_ready: of TorchServe.
        device, codec, checkpoint: None while that is not known.
    """

    version: str
    default: bool
    workers: int
    workers_ready: int
    device: str | None
    codec: str | None
    checkpoint: str | None

    @classmethod
    def read(cls, document: dict[str, Any]) -> Self:
        """The model in a JSON document."""
        known: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
        return cls(**known)
