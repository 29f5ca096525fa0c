"""A client of MusicLab's API.

client = MusicLabClient("http://localhost:8001")
job_id = client.generate(Path("a.mp3"), Path("b.m4a"), start1=10.0, start2=30.0)
client.wait(job_id, on_change=print)
Path("out.wav").write_bytes(client.download(job_id))
client.cleanup(job_id)
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from orchestrator.errors import ApiError, JobFailedError

POLL_S = 0.5
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Status:
    """A job's status as the API tells it; progress is 0 to 100."""

    job_id: str
    status: str
    progress: int
    message: str
    error_code: str | None


@dataclass(frozen=True)
class MusicLabClient:
    """Calls one MusicLab.

    Attributes:
        url: its address, without a slash at its end.

    Every method raises ApiError when the service refuses, or does not answer.
    """

    url: str

    def generate(self, track1: Path, track2: Path, start1: float = 0.0, start2: float = 0.0) -> str:
        """Queue a job; returns its id.

        Args:
            track1: an audio file.
            track2: another one.
            start1: where in track 1 the sixteen seconds begin, in seconds.
            start2: the same of track 2.
        """
        with ExitStack() as files:
            tracks = {
                name: (path.name, files.enter_context(path.open("rb")))
                for name, path in (("track1", track1), ("track2", track2))
            }
            starts = {"start_time_1": str(start1), "start_time_2": str(start2)}
            answer = self._call("POST", "/api/generate", files=tracks, data=starts)
        return str(answer.json()["job_id"])

    def status(self, job_id: str) -> Status:
        document = self._call("GET", f"/api/status/{job_id}").json()
        return Status(
            document["job_id"],
            document["status"],
            document["progress"],
            document["message"],
            document.get("error_code"),
        )

    def wait(self, job_id: str, on_change: Callable[[Status], None] = lambda _: None) -> None:
        """Return when the job is completed; tells `on_change` the first status and every other.

        Raises:
            JobFailedError: it failed.
        """
        last = None
        while True:
            now = self.status(job_id)
            if now != last:
                on_change(now)
            if now.status == "completed":
                return
            if now.status == "failed":
                raise JobFailedError(now.message)
            last = now
            time.sleep(POLL_S)

    def download(self, job_id: str) -> bytes:
        """The WAV file of a completed job."""
        return self._call("GET", f"/api/download/{job_id}").content

    def cleanup(self, job_id: str) -> None:
        """Cancel the job if it is not done, and remove its files."""
        self._call("DELETE", f"/api/cleanup/{job_id}")

    def _call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            answer = requests.request(method, self.url + path, timeout=TIMEOUT_S, **arguments)
        except requests.ConnectionError as error:
            raise ApiError(
                f"MusicLab does not answer at {self.url}; start it with `musiclab up`"
            ) from error
        except requests.RequestException as error:
            raise ApiError(f"the request to {self.url} failed: {error}") from error
        if not answer.ok:
            raise ApiError(_detail(answer))
        return answer


def _detail(answer: requests.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered {answer.status_code}"
