"""Clients that make music all the time, and look at every job."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.service import Service
from tests.signals import Samples
from tests.versions import TRACKS, made_by

POLL_S = 0.5
DONE_WITHIN_S = 300


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        references: what each version makes of TRACKS; known before that version is the default.
        completed: jobs by the version that made them, as their status says.
        faults: what should never be seen.
        seconds: from the submission to the music, of each job.
    """

    service: Service
    references: dict[str, Samples]
    completed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @contextmanager
    def by(self, clients: int) -> Iterator[None]:
        """Have so many clients at it; when the block is left, each ends the job it has."""
        end = threading.Event()
        with ThreadPoolExecutor(clients) as pool:
            running = [pool.submit(self._make_music, end) for _ in range(clients)]
            try:
                yield
            finally:
                end.set()
        for client in running:
            client.result()

    def wait_for(self, version: str, jobs: int) -> None:
        """Return when so many further jobs were made by a version."""
        enough = self.completed[version] + jobs
        deadline = time.monotonic() + DONE_WITHIN_S
        while self.completed[version] < enough:
            assert not self.faults, self.faults
            assert time.monotonic() < deadline, f"{version} made {jobs} jobs too slowly"
            time.sleep(POLL_S)

    def _make_music(self, end: threading.Event) -> None:
        while not end.is_set():
            try:
                self._one_job()
            except Exception as error:
                self.faults.append(repr(error))
                return

    def _one_job(self) -> None:
        began = time.monotonic()
        accepted = self.service.generate(
            {name: (f"{name}.wav", content) for name, content in TRACKS.items()}
        )
        assert accepted.status_code == 202, accepted.text
        job_id = accepted.json()["job_id"]
        while True:
            job = self.service.call("GET", f"/api/status/{job_id}").json()
            if job["status"] in ("completed", "failed"):
                break
            assert time.monotonic() < began + DONE_WITHIN_S, f"not done: {job}"
            time.sleep(POLL_S)
        if job["status"] == "failed":
            self.faults.append(f"job {job_id} failed: {job['message']}")
            return
        self.seconds.append(time.monotonic() - began)
        music = self.service.call("GET", f"/api/download/{job_id}").content
        heard = made_by(music, self.references)
        if heard != job["model_version"]:
            self.faults.append(f"job {job_id} says {job['model_version']}, but {heard} made it")
        self.completed[job["model_version"]] += 1
        self.service.call("DELETE", f"/api/cleanup/{job_id}")
