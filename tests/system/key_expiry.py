"""`python -m tests.system.key_expiry --minutes 4`: jobs complete while TorchServe's keys change."""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.settings import Settings
from tests.support.project import PROJECT
from tests.support.service import Service
from tests.support.settings import settings_in
from tests.support.signals import SEGMENT, encoded, noise
from tests.system.chaos.commands import Command, wait_ready

CLIENTS = 2
POLL_S = 0.1
KINDS = ("inference", "management", "API")


@dataclass
class Report:
    """The results of a run.

    Attributes:
        completed: number of completed jobs.
        starts: number of TorchServe starts, according to its key file.
        renewed: number of keys generated in addition to those at each start, by kind.
        failed_attempts: failed attempts at jobs before the restart of TorchServe.
        failed_attempts_later: failed attempts at jobs from the restart of TorchServe on.
        failures: descriptions of rejected and failed jobs.
    """

    completed: int = 0
    starts: int = 0
    renewed: dict[str, int] = field(default_factory=dict)
    failed_attempts: int = 0
    failed_attempts_later: int = 0
    failures: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        renewed = " and ".join(f"{count} {kind}" for kind, count in self.renewed.items())
        return [
            f"jobs completed: {self.completed}",
            f"jobs failed: {len(self.failures)}",
            f"starts of TorchServe: {self.starts}",
            f"keys renewed: {renewed}",
            f"failed attempts before the restart: {self.failed_attempts}",
            f"failed attempts after the restart: {self.failed_attempts_later}",
        ]


def with_key_lifetime(settings: Settings, minutes: float) -> Settings:
    """Settings with this lifetime of TorchServe's keys; may be a fraction of a minute."""
    common = (PROJECT / "config.properties").read_text()
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    file = settings.run_dir / "short-keys.properties"
    file.write_text(f"{common}\ntoken_expiration_min={minutes}\n")
    return settings.model_copy(update={"config_properties": file})


def run(settings: Settings, seconds: float, lifetime_min: float) -> Report:
    """Run jobs of two clients, with a restart of TorchServe in the middle.

    Args:
        settings: settings with directories and ports used by this run alone.
        seconds: duration for which jobs are submitted.
        lifetime_min: lifetime of TorchServe's keys, in minutes.
    """
    chosen = {"rate_limit": 0, "reuse_results": False}
    settings = with_key_lifetime(settings.model_copy(update=chosen), lifetime_min)
    report, service = Report(), Service(settings)
    up = Command(("up",), settings, settings.api_port, settings.run_dir / "up.log")
    up.start()
    try:
        wait_ready(up)
        began = time.monotonic()
        with _watched_keys(settings.key_file) as seen, ThreadPoolExecutor(CLIENTS) as clients:
            ends = began + seconds
            done = [
                clients.submit(_jobs, service, number, ends, report) for number in range(CLIENTS)
            ]
            time.sleep(seconds / 2)
            report.failed_attempts = service.failed_attempts()
            service.kill_torchserve()
            for each in done:
                report.completed += each.result()
        report.failed_attempts_later = service.failed_attempts() - report.failed_attempts
    finally:
        up.stop()
    report.starts = len(seen["API"])
    report.renewed = {kind: len(seen[kind]) - report.starts for kind in KINDS if kind != "API"}
    return report


def _jobs(service: Service, number: int, until: float, report: Report) -> int:
    """Submit jobs one after another, and return the number of completed jobs."""
    completed = 0
    tracks = {
        f"track{track}": (f"{track}.wav", encoded(noise(SEGMENT, 2 * number + track)))
        for track in (1, 2)
    }
    while time.monotonic() < until:
        response = service.generate(tracks)
        if response.status_code != 202:
            report.failures.append(f"not accepted: {response.text}")
            return completed
        job = service.finished(response.json()["job_id"])
        if job["status"] == "completed":
            completed += 1
        else:
            report.failures.append(f"failed: {job}")
    return completed


@contextmanager
def _watched_keys(file: Path) -> Iterator[dict[str, set[str]]]:
    """Poll the key file in a thread; yields all keys seen so far, by kind."""
    seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_S):
            with suppress(FileNotFoundError, ValueError):  # the file is being written
                keys = json.loads(file.read_text())
                for kind in KINDS:
                    seen[kind].add(keys[kind]["key"])

    watching = threading.Thread(target=poll)
    watching.start()
    try:
        yield seen
    finally:
        ended.set()
        watching.join()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.key_expiry", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="duration of the submissions")
    parser.add_argument("--lifetime", type=float, default=1.0, help="lifetime of a key, in minutes")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="musiclab-keys-"))
    report = run(settings_in(folder), arguments.minutes * 60, arguments.lifetime)
    print(*report.failures, *report.lines(), sep="\n")
    if report.failures:
        print(f"See the logs in {folder}.")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
