"""Clients that continuously submit jobs, and check every result."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.service import Service
from tests.support.signals import Samples
from tests.support.versions import TRACKS, generated_by

POLL_S = 0.5
DONE_WITHIN_S = 300


@dataclass
class Load:
    """The load and its results.

    The first client requests the default version by name, until `stop_pinning`: jobs that request a
    version fail if that version is unregistered through the management API.

    Attributes:
        references: the music of each version for TRACKS.
        completed: number of completed jobs by version, which is identified by comparing the music.
        by_name: number of completed jobs that requested a version.
        failures: descriptions of failed jobs and of wrong versions.
        seconds: seconds from submission to completion of each job.
    """

    service: Service
    references: dict[str, Samples]
    completed: Counter[str] = field(default_factory=Counter)
    by_name: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _pinning: threading.Event = field(default_factory=threading.Event)
    _unpinned: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Run `clients` clients; at the end of the block, each finishes its current job."""
        end = threading.Event()
        self._pinning.set()
        with ThreadPoolExecutor(clients) as pool:
            running = [pool.submit(self._run_client, end, n == 0) for n in range(clients)]
            try:
                yield
            finally:
                end.set()
        for client in running:
            client.result()

    def wait_for(self, version: str, jobs: int) -> None:
        """Wait until a version has completed `jobs` more jobs."""
        enough = self.completed[version] + jobs
        deadline = time.monotonic() + DONE_WITHIN_S
        while self.completed[version] < enough:
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, f"{version} did not complete {jobs} jobs in time"
            time.sleep(POLL_S)

    def stop_pinning(self) -> None:
        """Stop requesting a version by name, and wait until no such job is left."""
        self._pinning.clear()
        assert self._unpinned.wait(DONE_WITHIN_S), "a job that requested a version is not finished"

    def _run_client(self, end: threading.Event, pins: bool) -> None:
        while not end.is_set():
            if pins and not self._pinning.is_set():
                pins = False
                self._unpinned.set()
            try:
                self._one_job(self._default_version() if pins else None)
            except Exception as error:
                self.failures.append(repr(error))
                return

    def _default_version(self) -> str:
        models = self.service.call("GET", "/api/models").json()["models"]
        return next(str(each["version"]) for each in models if each["default"])

    def _one_job(self, wanted: str | None) -> None:
        began = time.monotonic()
        files = {name: (f"{name}.wav", content) for name, content in TRACKS.items()}
        form = {} if wanted is None else {"model_version": wanted}
        accepted = self.service.generate(files, **form)
        if wanted is not None and accepted.json().get("code") == "model_not_loaded":
            return  # the version was unloaded in the meantime, and the job was not accepted
        assert accepted.status_code == 202, accepted.text
        job_id = accepted.json()["job_id"]
        while True:
            job = self.service.call("GET", f"/api/status/{job_id}").json()
            if job["status"] in ("completed", "failed"):
                break
            assert time.monotonic() < began + DONE_WITHIN_S, f"not finished: {job}"
            time.sleep(POLL_S)
        if job["status"] == "failed":
            self.failures.append(f"job {job_id} failed: {job['message']}")
            return
        self.seconds.append(time.monotonic() - began)
        music = self.service.call("GET", f"/api/download/{job_id}").content
        actual = generated_by(music, self.references)
        if actual != job["model_version"]:
            self.failures.append(
                f"job {job_id} reports {job['model_version']}, but {actual} generated it"
            )
        if wanted not in (None, actual):
            self.failures.append(f"job {job_id} requested {wanted}, but {actual} generated it")
        self.by_name += wanted is not None
        self.completed[actual] += 1
        self.service.call("DELETE", f"/api/cleanup/{job_id}")
