"""A Python client for the MusicLab API.

client = MusicLabClient("http://localhost:8001")
job_id = client.submit(Path("a.mp3"), Path("b.m4a"), start1=10.0, start2=30.0)
client.wait(job_id, on_change=print)
Path("out.wav").write_bytes(client.download(job_id))
client.cancel(job_id)
"""

import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import requests
from urllib3 import encode_multipart_formdata

from orchestrator.client.documents import Model, Status
from orchestrator.client.events import Event, closed_at, read_events
from orchestrator.client.http import CONNECTION_ERRORS, json_object, retrying, send
from orchestrator.errors import ApiError, ApiUnavailableError, JobFailedError

POLL_S = 0.5
# The service sends a keep-alive every 15 s on an idle event stream.
STREAM_TIMEOUT_S = 20.0
# After this time without an event stream, the client polls instead.
STREAM_RETRY_S = 15.0


@dataclass(frozen=True)
class MusicLabClient:
    """A client for one MusicLab service; safe to share between threads.

    Requests that fail temporarily are retried for up to `patience_s` seconds. All requests are safe
    to retry.

    Attributes:
        url: base URL of the service.
        api_key: an API key, if the service requires one.
        patience_s: how long a request is retried, in seconds. If the next wait, such as that of a
            Retry-After header, would exceed it, the request fails immediately.

    Every method raises ApiError if the service rejects the request, and its subclass
    ApiUnavailableError if the request still fails when its retries end.
    """

    url: str
    api_key: str | None = None
    patience_s: float = 90.0

    def submit(
        self,
        track1: Path,
        track2: Path,
        *,
        start1: float = 0.0,
        start2: float = 0.0,
        end1: float | None = None,
        end2: float | None = None,
        model_version: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Submits a job and returns its ID.

        Args:
            track1: first audio file.
            track2: second audio file.
            start1: start of the window in track 1, in seconds.
            start2: start of the window in track 2, in seconds.
            end1: end of the window in track 1, in seconds; None for sixteen seconds after its
                start.
            end2: end of the window in track 2, likewise.
            model_version: model version to use; None for the default version.
            idempotency_key: repeated requests with this key create only one job; None for a new
                key.

        Raises:
            OSError: a track cannot be read.
        """
        form: dict[str, Any] = {
            "start_time_1": str(start1),
            "start_time_2": str(start2),
            "end_time_1": end1 if end1 is None else str(end1),
            "end_time_2": end2 if end2 is None else str(end2),
            "model_version": model_version,
            "track1": (track1.name, track1.read_bytes()),
            "track2": (track2.name, track2.read_bytes()),
        }
        # Read and encoded once, so that every retry sends the same body.
        body, content_type = encode_multipart_formdata(
            {name: value for name, value in form.items() if value is not None}
        )
        headers = {
            "Content-Type": content_type,
            "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
        }
        response = self._call("POST", "/api/generate", body=body, headers=headers)
        return str(json_object(response)["job_id"])

    def status(self, job_id: str) -> Status:
        """Returns the current status of the job."""
        return Status.read(json_object(self._call("GET", f"/api/status/{job_id}")))

    def events(self, job_id: str) -> Iterator[Status]:
        """Yields the current status of the job, then each change until the final status.

        A broken event stream is resumed after the last received event.
        """
        return self._events(job_id, math.inf)

    def wait(
        self,
        job_id: str,
        on_change: Callable[[Status], None] = lambda _: None,
        timeout_s: float | None = None,
    ) -> Status:
        """Waits until the job is completed; calls `on_change` with every new status.

        Raises:
            JobFailedError: the job failed.
            TimeoutError: the job was not finished after `timeout_s` seconds.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        last = None
        for current in self._changes(job_id, deadline):
            if current != last:
                on_change(current)
            if current.status == "completed":
                return current
            if current.status == "failed":
                raise JobFailedError(current.error_code, current.message)
            last = current
        raise TimeoutError(f"job {job_id} was not finished after {timeout_s} s")

    def download(self, job_id: str) -> bytes:
        """Returns the WAV file of a completed job."""
        return self._call("GET", f"/api/download/{job_id}").content

    def cancel(self, job_id: str) -> None:
        """Cancels the job if it is not finished, and deletes it with all its files."""
        attempts = retrying(self.patience_s)
        try:
            attempts(self._once, "DELETE", f"/api/cleanup/{job_id}")
        except ApiError as error:
            # If a retry finds no job, an earlier try deleted it and its response was lost.
            is_repeated = attempts.statistics["attempt_number"] > 1
            if not (is_repeated and error.code == "job_not_found"):
                raise

    def models(self) -> list[Model]:
        """Returns the loaded model versions."""
        documents = json_object(self._call("GET", "/api/models"))["models"]
        return [Model.read(document) for document in documents]

    def _changes(self, job_id: str, deadline: float) -> Iterator[Status]:
        """Yields statuses until the final one or the deadline, from events or else by polling."""
        try:
            yield from self._until(deadline, STREAM_RETRY_S)._events(job_id, deadline)
            return
        except ApiError as error:
            if error.code == "job_not_found":
                raise
        while time.monotonic() < deadline:
            yield self._until(deadline).status(job_id)
            time.sleep(POLL_S)

    def _events(self, job_id: str, deadline: float) -> Iterator[Status]:
        seen = "0"
        while time.monotonic() < deadline:
            response, stream = retrying(self.patience_s)(self._stream, job_id, seen)
            with response, closed_at(response, deadline), suppress(*CONNECTION_ERRORS):
                for event_id, document in stream:
                    if document["status"] == "deleted":
                        raise ApiError("The job was deleted", 404, "job_not_found")
                    seen = event_id or seen
                    status = Status.read(document)
                    yield status
                    if status.is_final:
                        return
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))

    def _stream(self, job_id: str, seen: str) -> tuple[requests.Response, Iterator[Event]]:
        """Opens an event stream and waits for its first event, which is sent immediately."""
        response = self._once(
            "GET",
            f"/api/events/{job_id}",
            headers={"Last-Event-ID": seen},
            stream=True,
            read_timeout_s=STREAM_TIMEOUT_S,
        )
        events = read_events(response)
        try:
            return response, chain([next(events)], events)
        except (StopIteration, *CONNECTION_ERRORS) as error:
            response.close()
            raise ApiUnavailableError(
                f"{response.url} did not send any events", response.status_code
            ) from error

    def _until(self, deadline: float, longest_s: float = math.inf) -> Self:
        """Returns a copy of the client that retries until `deadline`, for at most `longest_s`."""
        left = deadline - time.monotonic()
        return replace(self, patience_s=max(0.0, min(self.patience_s, longest_s, left)))

    def _call(self, method: str, path: str, **options: Any) -> requests.Response:
        return retrying(self.patience_s)(self._once, method, path, **options)

    def _once(self, method: str, path: str, **options: Any) -> requests.Response:
        return send(self.url, self.api_key, method, path, **options)
