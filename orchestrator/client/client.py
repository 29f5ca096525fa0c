"""A client of MusicLab's API.

client = MusicLabClient("http://localhost:8001")
job_id = client.submit(Path("a.mp3"), Path("b.m4a"), start1=10.0, start2=30.0)
client.wait(job_id, on_change=print)
Path("out.wav").write_bytes(client.download(job_id))
client.cancel(job_id)
"""

import io
import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import requests
from requests.exceptions import ChunkedEncodingError, SSLError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_exception,
    wait_random_exponential,
)
from urllib3 import Retry, encode_multipart_formdata
from urllib3.exceptions import InvalidHeader

from orchestrator.errors import ApiError, ApiUnavailableError, JobFailedError

POLL_S = 0.5
CONNECT_S = 10.0
ANSWER_S = 60.0
# The service says something every 15 s on a stream on which nothing happens.
SILENCE_S = 20.0
# While there is no stream one can poll, so that waiting for it longer is no use.
STREAM_PATIENCE_S = 15.0

# The service is being started, is busy, or counts our requests. Not 507: a disk stays full.
PASSING = (429, 502, 503, 504)
BROKEN = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)

# The document of an event, and its id where it has one.
Event = tuple[str | None, dict[str, Any]]


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
        return str(_document(answer)["job_id"])

    def status(self, job_id: str) -> Status:
        return Status.read(_document(self._call("GET", f"/api/status/{job_id}")))

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
        retrying = self._retrying()
        try:
            retrying(self._once, "DELETE", f"/api/cleanup/{job_id}")
        except ApiError as error:
            # When the job is gone at a later try, an earlier one whose answer was lost removed it.
            is_repeated = retrying.statistics["attempt_number"] > 1
            if not (is_repeated and error.code == "job_not_found"):
                raise

    def models(self) -> list[Model]:
        """The loaded versions of the model."""
        documents = _document(self._call("GET", "/api/models"))["models"]
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
            answer, stream = self._retrying()(self._stream, job_id, seen)
            with answer, _cut_off(answer, deadline), suppress(*BROKEN):
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
        events = _read_events(answer)
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
        return self._retrying()(self._once, method, path, **more)

    def _retrying(self) -> Retrying:
        """Repeats what raises ApiUnavailableError.

        Not urllib3's Retry: that counts tries, where restarts and rate limits are matters of time,
        and knows nothing of a body that breaks off after the headers came.
        """
        return Retrying(
            retry=retry_if_exception_type(ApiUnavailableError),
            # Chance spreads out those who were all sent away at the same time.
            wait=wait_exception(_asked_wait) + wait_random_exponential(multiplier=0.25, max=8),
            stop=stop_before_delay(self.patience_s),
            reraise=True,
        )

    def _once(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        stream: bool = False,
        answer_s: float = ANSWER_S,
    ) -> requests.Response:
        key = {} if self.api_key is None else {"X-API-Key": self.api_key}
        try:
            answer = requests.request(
                method,
                self.url.rstrip("/") + path,
                # As a file, of which each piece has the timeout for itself: a slow line may take
                # minutes for all of it.
                data=None if body is None else io.BytesIO(body),
                headers=key | (headers or {}),
                timeout=(CONNECT_S, answer_s),
                stream=stream,
            )
            if answer.ok:
                return answer
            raise _refusal(answer)
        except SSLError as error:  # a certificate stays wrong
            raise ApiError(f"the request to {self.url} failed: {error}") from error
        except requests.ConnectionError as error:
            raise ApiUnavailableError(
                f"MusicLab does not answer at {self.url}; start it with `musiclab up`"
            ) from error
        except BROKEN as error:
            raise ApiUnavailableError(f"the request to {self.url} failed: {error}") from error
        except requests.RequestException as error:
            raise ApiError(f"the request to {self.url} failed: {error}") from error


def _refusal(answer: requests.Response) -> ApiError:
    status = answer.status_code
    try:
        document = answer.json()
        detail, code = str(document["detail"]), str(document["code"])
    except (ValueError, KeyError, TypeError):
        detail, code = f"{answer.url} answered {status}", None
    if status not in PASSING:
        return ApiError(detail, status, code)
    try:
        wait = Retry().parse_retry_after(answer.headers.get("Retry-After", "0"))
    except InvalidHeader:
        wait = 0.0
    return ApiUnavailableError(detail, status, code, retry_after_s=wait)


def _asked_wait(error: BaseException) -> float:
    return error.retry_after_s if isinstance(error, ApiUnavailableError) else 0.0


def _document(answer: requests.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ApiError(f"{answer.url} is not MusicLab's: it answers with no JSON object")
    return document


def _read_events(answer: requests.Response) -> Iterator[Event]:
    """The server-sent events of an answer, as they come.

    Lines are read byte by byte, because reading more than there is would wait for the rest.
    """
    event_id, data = None, []
    for line in answer.iter_lines(chunk_size=1):
        field, _, value = line.decode().partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield event_id, json.loads("\n".join(data))
            event_id, data = None, []


@contextmanager
def _cut_off(answer: requests.Response, deadline: float) -> Iterator[None]:
    """End a stream at the deadline, even while it is waited for its next event."""
    if deadline == math.inf:
        yield
        return

    def cut() -> None:
        with suppress(OSError, RuntimeError, ValueError):  # it has ended by itself
            answer.raw.shutdown()

    left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
    timer = threading.Timer(max(0.0, left), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
