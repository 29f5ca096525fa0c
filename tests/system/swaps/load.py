"""Clients that make music all the time, and look at every job."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.service import Service
from tests.support.signals import Samples
from tests.support.versions import TRACKS, made_by

POLL_S = 0.5
DONE_WITHIN_S = 300


@dataclass
class Load:
    """What the clients saw.

    The first of them asks by name for the version that serves, until `stop_pinning`: a version that
    is unregistered by hand takes such jobs with it.

    Attributes:
        references: what each version makes of TRACKS; known before that version is the default.
        completed: jobs by the version that made them, as their status says.
        by_name: how many of them asked for that version.
        faults: what should never be seen.
        seconds: from the submission to the music, of each job.
    """

    service: Service
    references: dict[str, Samples]
    completed: Counter[str] = field(default_factory=Counter)
    by_name: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _pinning: threading.Event = field(default_factory=threading.Event)
    _unpinned: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def by(self, clients: int) -> Iterator[None]:
        """Have so many clients at it; when the block is left, each ends the job it has."""
        end = threading.Event()
        self._pinning.set()
        with ThreadPoolExecutor(clients) as pool:
            running = [pool.submit(self._make_music, end, n == 0) for n in range(clients)]
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

    def stop_pinning(self) -> None:
        """Return when no job is left that asked for a version by name."""
        self._pinning.clear()
        assert self._unpinned.wait(DONE_WITHIN_S), "a job that asked for a version is not done"

    def _make_music(self, end: threading.Event, pins: bool) -> None:
        while not end.is_set():
            if pins and not self._pinning.is_set():
                pins = False
                self._unpinned.set()
            try:
                self._one_job(self._default_version() if pins else None)
            except Exception as error:
                self.faults.append(repr(error))
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
            return  # it was unloaded a moment ago, and nothing was promised
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
        if wanted not in (None, heard):
            self.faults.append(f"job {job_id} asked for {wanted}, but {heard} made it")
        self.by_name += wanted is not None
        self.completed[heard] += 1
        self.service.call("DELETE", f"/api/cleanup/{job_id}")
