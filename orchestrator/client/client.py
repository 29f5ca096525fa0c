"""A client of MusicLab's API.

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
from orchestrator.client.http import BROKEN, json_object, retrying, send
from orchestrator.errors import ApiError, ApiUnavailableError, JobFailedError

POLL_S = 0.5
# The service says something every 15 s on a stream on which nothing happens.
SILENCE_S = 20.0
# While there is no stream one can poll, so that waiting for it longer is no use.
STREAM_PATIENCE_S = 15.0


@dataclass(frozen=True)
class MusicLabClient:
    """Calls one MusicLab; threads may share it.

    A request that gets no answer, or is told to come again, is repeated until the patience ends.
    All of them are safe to repeat.

    Attributes:
        url: its address.
        api_key: one of its keys, where it asks for one.
        patience_s: for how long a request is repeated, in seconds. A wait that would last longer,
            as one the service asks for may, is not begun.

    Every method raises ApiError when the service refuses, and its ApiUnavailableError when the
    patience ends.
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
        """Queue a job; returns its id.

        Args:
            track1: an audio file.
            track2: another one.
            start1: where in track 1 the sixteen seconds begin, in seconds.
            start2: the same of track 2.
            end1: where they end earlier than after sixteen seconds.
            end2: the same of track 2.
            model_version: what makes the music, if not the default one.
            idempotency_key: the same key gives the same job; a new one if there is none.

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
        # Read and encoded once, so that every try sends the same.
        body, content_type = encode_multipart_formdata(
            {name: value for name, value in form.items() if value is not None}
        )
        headers = {
            "Content-Type": content_type,
            "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
        }
        answer = self._call("POST", "/api/generate", body=body, headers=headers)
        return str(json_object(answer)["job_id"])

    def status(self, job_id: str) -> Status:
        return Status.read(json_object(self._call("GET", f"/api/status/{job_id}")))

    def events(self, job_id: str) -> Iterator[Status]:
        """Its status at once, then every change of it, until the last.

        A stream that breaks goes on where it was.
        """
        return self._events(job_id, math.inf)

    def wait(
        self,
        job_id: str,
        on_change: Callable[[Status], None] = lambda _: None,
        timeout_s: float | None = None,
    ) -> Status:
        """Return when the job is completed; tells `on_change` the first status and every other.

        Raises:
            JobFailedError: it failed.
            TimeoutError: it was neither after `timeout_s` seconds.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        last = None
        for now in self._changes(job_id, deadline):
            if now != last:
                on_change(now)
            if now.status == "completed":
                return now
            if now.status == "failed":
                raise JobFailedError(now.error_code, now.message)
            last = now
        raise TimeoutError(f"job {job_id} was not done after {timeout_s} s")

    def download(self, job_id: str) -> bytes:
        """The WAV file of a completed job."""
        return self._call("GET", f"/api/download/{job_id}").content

    def cancel(self, job_id: str) -> None:
        """Cancel the job if it is not done, and remove all there is of it."""
        attempts = retrying(self.patience_s)
        try:
            attempts(self._once, "DELETE", f"/api/cleanup/{job_id}")
        except ApiError as error:
            # When the job is gone at a later try, an earlier one whose answer was lost removed it.
            is_repeated = attempts.statistics["attempt_number"] > 1
            if not (is_repeated and error.code == "job_not_found"):
                raise

    def models(self) -> list[Model]:
        """The loaded versions of the model."""
        documents = json_object(self._call("GET", "/api/models"))["models"]
        return [Model.read(document) for document in documents]

    def _changes(self, job_id: str, deadline: float) -> Iterator[Status]:
        """Its statuses until the last or the deadline: by events, or else by polling."""
        try:
            yield from self._until(deadline, STREAM_PATIENCE_S)._events(job_id, deadline)
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
            answer, stream = retrying(self.patience_s)(self._stream, job_id, seen)
            with answer, closed_at(answer, deadline), suppress(*BROKEN):
                for event_id, document in stream:
                    if document["status"] == "deleted":
                        raise ApiError("The job was removed", 404, "job_not_found")
                    seen = event_id or seen
                    status = Status.read(document)
                    yield status
                    if status.is_final:
                        return
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))

    def _stream(self, job_id: str, seen: str) -> tuple[requests.Response, Iterator[Event]]:
        """A stream after its first event, which the service sends at once."""
        answer = self._once(
            "GET",
            f"/api/events/{job_id}",
            headers={"Last-Event-ID": seen},
            stream=True,
            answer_s=SILENCE_S,
        )
        events = read_events(answer)
        try:
            return answer, chain([next(events)], events)
        except (StopIteration, *BROKEN) as error:
            answer.close()
            raise ApiUnavailableError(
                f"{answer.url} sends no events", answer.status_code
            ) from error

    def _until(self, deadline: float, longest_s: float = math.inf) -> Self:
        """The same client with at most that much patience."""
        left = deadline - time.monotonic()
        return replace(self, patience_s=max(0.0, min(self.patience_s, longest_s, left)))

    def _call(self, method: str, path: str, **more: Any) -> requests.Response:
        return retrying(self.patience_s)(self._once, method, path, **more)

    def _once(self, method: str, path: str, **more: Any) -> requests.Response:
        return send(self.url, self.api_key, method, path, **more)
