"""Steady submissions to an API that may be gone at any moment, and a look at every job."""

import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from typing import Any

import requests

from tests.support.signals import RATE, encoded, noise
from tests.system.chaos.commands import wait_until

AT_ONCE = 4  # jobs that are not done yet: two at work, the others in the queue
SUBMITTERS = 2
PAUSE_S = 0.2
TIMEOUT_S = 15
IMPATIENT_S = 0.1  # as long as a request takes: its answer may be lost though it was accepted
FIRST_JOBS = 1
FIRST_WITHIN_S = 120


class Load:
    """Submits tracks that are all different, each under a key of its own until it is answered.

    Attributes:
        submitted: requests that were made, however often each.
        accepted: the job of every key that was answered.
        repeated: keys whose first answer was lost: the job was there already.
        refusals: answers that said to try again.
        faults: what should never be seen.
    """

    def __init__(self, port: int) -> None:
        self.submitted = 0
        self.accepted: dict[str, str] = {}
        self.repeated: set[str] = set()
        self.refusals = 0
        self.faults: list[str] = []
        self._url = f"http://127.0.0.1:{port}"
        self._numbers = count()
        self._submitters: list[Future[None]] = []
        self._unfinished: dict[str, int] = {}  # the progress that was seen last
        self._job_seconds: list[float] = []
        self._sending = threading.Event()
        self._no_more = threading.Event()
        self._end = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(SUBMITTERS + 1) as pool:
            self._submitters = [pool.submit(self._submit) for _ in range(SUBMITTERS)]
            follower = pool.submit(self._follow)
            try:
                yield
            finally:
                self._no_more.set()
                self._end.set()
            follower.result()

    def job_seconds(self) -> float:
        """The median time that a job was at work, from its start to its end."""
        wait_until(
            lambda: len(self._job_seconds) >= FIRST_JOBS,
            FIRST_WITHIN_S,
            f"{FIRST_JOBS} job(s) completed",
        )
        return statistics.median(self._job_seconds)

    def wait_sending(self, within_s: float) -> None:
        """Return when the next request is being sent, or after that time."""
        self._sending.clear()
        self._sending.wait(within_s)

    def finish(self, within_s: float) -> None:
        """Submit no more, and wait until nothing is left to do."""
        self._no_more.set()
        for submitter in self._submitters:
            submitter.result(within_s)
        wait_until(lambda: not self._unfinished, within_s, "all jobs are completed or failed")

    def _submit(self) -> None:
        while not self._no_more.is_set():
            if len(self._unfinished) >= AT_ONCE:
                time.sleep(PAUSE_S)
                continue
            number = next(self._numbers)
            self.submitted = number + 1
            files = {
                f"track{track}": (f"{number}.wav", encoded(noise(2 * RATE, 2 * number + track)))
                for track in (1, 2)
            }
            self._submit_one(str(uuid.uuid4()), files, IMPATIENT_S if number % 3 else TIMEOUT_S)

    def _submit_one(self, key: str, files: dict[str, Any], timeout_s: float) -> None:
        """Send a request again and again until it is answered; wait so long for the first time."""
        while not self._end.is_set():
            self._sending.set()
            answer = self._call("POST", "/api/generate", timeout_s, files=files, key=key)
            timeout_s = TIMEOUT_S
            if answer is None:
                time.sleep(PAUSE_S)
                continue
            if answer.status_code != 202:
                self.faults.append(f"a submission was answered {answer.status_code} {answer.text}")
                return
            job_id = answer.json()["job_id"]
            self.accepted[key] = job_id
            if "Idempotent-Replayed" in answer.headers:
                self.repeated.add(key)
            self._unfinished[job_id] = 0
            return

    def _follow(self) -> None:
        while not self._end.is_set():
            for job_id, seen in list(self._unfinished.items()):
                answer = self._call("GET", f"/api/status/{job_id}")
                if answer is None:
                    continue
                if answer.status_code != 200:
                    self.faults.append(f"job {job_id} was accepted and has status {answer.text}")
                    del self._unfinished[job_id]
                    continue
                self._look(job_id, seen, answer.json())
            time.sleep(PAUSE_S)

    def _look(self, job_id: str, seen: int, document: dict[str, Any]) -> None:
        if document["progress"] < seen:
            self.faults.append(f"job {job_id}: progress went back from {seen} in {document}")
        self._unfinished[job_id] = document["progress"]
        if document["status"] == "failed":
            self.faults.append(f"job {job_id} failed: {document}")
        if document["status"] == "completed" and document["attempts"] == 1:
            start, end = (
                datetime.fromisoformat(document[at]) for at in ("started_at", "finished_at")
            )
            self._job_seconds.append((end - start).total_seconds())
        if document["status"] in ("completed", "failed"):
            del self._unfinished[job_id]

    def _call(
        self, method: str, path: str, timeout_s: float = TIMEOUT_S, key: str = "", **body: Any
    ) -> requests.Response | None:
        """The answer; None while there is none, or one that says to try again."""
        headers = {"Idempotency-Key": key} if key else {}
        try:
            answer = requests.request(
                method, self._url + path, headers=headers, timeout=timeout_s, **body
            )
        except requests.RequestException:
            return None
        if answer.status_code == 503 and "Retry-After" in answer.headers:
            self.refusals += 1
            return None
        return answer
