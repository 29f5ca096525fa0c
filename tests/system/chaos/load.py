"""Submits jobs steadily to an API that may be killed at any moment, and polls every job."""

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

AT_ONCE = 4  # unfinished jobs, of which each worker runs at most two
SUBMITTERS = 2
PAUSE_S = 0.2
TIMEOUT_S = 15
SHORT_TIMEOUT_S = 0.1  # about as long as a request takes, so that some responses are lost
FIRST_JOBS = 1
FIRST_WITHIN_S = 120


class Load:
    """Submits distinct tracks, and retries each with the same idempotency key until it succeeds.

    Attributes:
        submitted: number of distinct requests, not counting retries.
        accepted: the job of each key that received a response.
        repeated: keys whose first response was lost, so that a retry returned the existing job.
        rejections: number of responses that asked the client to retry.
        violations: descriptions of incorrect responses and failed jobs.
    """

    def __init__(self, port: int) -> None:
        self.submitted = 0
        self.accepted: dict[str, str] = {}
        self.repeated: set[str] = set()
        self.rejections = 0
        self.violations: list[str] = []
        self._url = f"http://127.0.0.1:{port}"
        self._numbers = count()
        self._submitters: list[Future[None]] = []
        self._unfinished: dict[str, int] = {}  # the last observed progress
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
        """The median running time of a job, from its start to its end."""
        wait_until(
            lambda: len(self._job_seconds) >= FIRST_JOBS,
            FIRST_WITHIN_S,
            f"{FIRST_JOBS} job(s) completed",
        )
        return statistics.median(self._job_seconds)

    def wait_sending(self, within_s: float) -> None:
        """Wait until the next request is being sent, at most `within_s` seconds."""
        self._sending.clear()
        self._sending.wait(within_s)

    def finish(self, within_s: float) -> None:
        """Stop submitting, and wait until all jobs are finished."""
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
            self._submit_one(str(uuid.uuid4()), files, SHORT_TIMEOUT_S if number % 3 else TIMEOUT_S)

    def _submit_one(self, key: str, files: dict[str, Any], timeout_s: float) -> None:
        """Retry a request until it gets a response; `timeout_s` applies to the first attempt."""
        while not self._end.is_set():
            self._sending.set()
            response = self._call("POST", "/api/generate", timeout_s, files=files, key=key)
            timeout_s = TIMEOUT_S
            if response is None:
                time.sleep(PAUSE_S)
                continue
            if response.status_code != 202:
                self.violations.append(
                    f"response to a submission: {response.status_code} {response.text}"
                )
                return
            job_id = response.json()["job_id"]
            self.accepted[key] = job_id
            if "Idempotent-Replayed" in response.headers:
                self.repeated.add(key)
            self._unfinished[job_id] = 0
            return

    def _follow(self) -> None:
        while not self._end.is_set():
            for job_id, seen in list(self._unfinished.items()):
                response = self._call("GET", f"/api/status/{job_id}")
                if response is None:
                    continue
                if response.status_code != 200:
                    self.violations.append(
                        f"status of accepted job {job_id}: {response.status_code} {response.text}"
                    )
                    del self._unfinished[job_id]
                    continue
                self._check(job_id, seen, response.json())
            time.sleep(PAUSE_S)

    def _check(self, job_id: str, seen: int, document: dict[str, Any]) -> None:
        if document["progress"] < seen:
            self.violations.append(f"job {job_id}: progress decreased from {seen} in {document}")
        self._unfinished[job_id] = document["progress"]
        if document["status"] == "failed":
            self.violations.append(f"job {job_id} failed: {document}")
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
        """The response; None if no response arrives, or if it asks the client to retry."""
        headers = {"Idempotency-Key": key} if key else {}
        try:
            response = requests.request(
                method, self._url + path, headers=headers, timeout=timeout_s, **body
            )
        except requests.RequestException:
            return None
        if response.status_code == 503 and "Retry-After" in response.headers:
            self.rejections += 1
            return None
        return response
