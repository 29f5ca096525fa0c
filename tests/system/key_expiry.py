"""`python -m tests.system.key_expiry --minutes 4`: jobs go on while TorchServe's keys change."""

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
LOOK_S = 0.1
KINDS = ("inference", "management", "API")


@dataclass
class Report:
    """What came of a run.

    Attributes:
        completed: jobs.
        starts: of TorchServe, as told by its key file.
        renewed: keys that were made beside those of a start, by kind.
        repeated: attempts at jobs that were given up while nothing but keys had ended.
        repeated_later: the same, from the restart of TorchServe on.
        faults: a sentence each.
    """

    completed: int = 0
    starts: int = 0
    renewed: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    repeated_later: int = 0
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        renewed = " and ".join(f"{count} {kind}" for kind, count in self.renewed.items())
        return [
            f"jobs completed: {self.completed}",
            f"jobs failed: {len(self.faults)}",
            f"starts of TorchServe: {self.starts}",
            f"keys renewed: {renewed}",
            f"attempts repeated: {self.repeated}, and {self.repeated_later} after the restart",
        ]


def with_key_lifetime(settings: Settings, minutes: float) -> Settings:
    """Settings under which TorchServe's keys end so soon; fractions of a minute are taken."""
    common = (PROJECT / "config.properties").read_text()
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    file = settings.run_dir / "short-keys.properties"
    file.write_text(f"{common}\ntoken_expiration_min={minutes}\n")
    return settings.model_copy(update={"config_properties": file})


def run(settings: Settings, seconds: float, lifetime_min: float) -> Report:
    """Two clients' jobs, one after another, with a restart of TorchServe in the middle.

    Args:
        settings: folders and ports of this run alone.
        seconds: for how long jobs are submitted.
        lifetime_min: of TorchServe's keys, in minutes.
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
            report.repeated = service.attempts_repeated()
            service.kill_torchserve()
            for each in done:
                report.completed += each.result()
        report.repeated_later = service.attempts_repeated() - report.repeated
    finally:
        up.stop()
    report.starts = len(seen["API"])
    report.renewed = {kind: len(seen[kind]) - report.starts for kind in KINDS if kind != "API"}
    return report


def _jobs(service: Service, number: int, until: float, report: Report) -> int:
    """Submit jobs one after another; how many were completed."""
    completed = 0
    tracks = {
        f"track{track}": (f"{track}.wav", encoded(noise(SEGMENT, 2 * number + track)))
        for track in (1, 2)
    }
    while time.monotonic() < until:
        answer = service.generate(tracks)
        if answer.status_code != 202:
            report.faults.append(f"not accepted: {answer.text}")
            return completed
        job = service.finished(answer.json()["job_id"])
        if job["status"] == "completed":
            completed += 1
        else:
            report.faults.append(f"failed: {job}")
    return completed


@contextmanager
def _watched_keys(file: Path) -> Iterator[dict[str, set[str]]]:
    """All keys that are seen in the file meanwhile, by kind."""
    seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            with suppress(FileNotFoundError, ValueError):  # it is being written
                keys = json.loads(file.read_text())
                for kind in KINDS:
                    seen[kind].add(keys[kind]["key"])

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield seen
    finally:
        ended.set()
        watching.join()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.key_expiry", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="of jobs")
    parser.add_argument("--lifetime", type=float, default=1.0, help="of a key, in minutes")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="musiclab-keys-"))
    report = run(settings_in(folder), arguments.minutes * 60, arguments.lifetime)
    print(*report.faults, *report.lines(), sep="\n")
    if report.faults:
        print(f"{folder} is left for a look at it.")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
