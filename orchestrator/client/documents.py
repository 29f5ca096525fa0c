"""The API's JSON documents as dataclasses."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Status:
    """The status of a job; fields missing from the API's response are None.

    Attributes:
        progress: 0 to 100; never decreases.
        attempts: number of finished attempts.
        model_version, codec: model that generates the music; None while unknown.
        timings: seconds by stage.
        queue_position: 1 for the next job; None unless queued.
        eta_seconds: estimated seconds until completion.
        error_code: error code; None unless failed.
        expires_at: earliest expiry of the job; None unless completed or failed.
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
        """Whether the job is finished, so that its status no longer changes."""
        return self.status in ("completed", "failed")

    @classmethod
    def read(cls, document: dict[str, Any]) -> Self:
        """Creates the status from a JSON document."""
        known: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
        for name in ("created_at", "started_at", "finished_at", "expires_at"):
            if known[name] is not None:
                known[name] = datetime.fromisoformat(known[name])
        return cls(**known)


@dataclass(frozen=True)
class Model:
    """A loaded model version.

    Attributes:
        default: whether it is used for jobs that request no version.
        workers, workers_ready: numbers of TorchServe workers.
        device, codec, checkpoint: None while unknown.
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
        """Creates the model from a JSON document."""
        known: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
        return cls(**known)
