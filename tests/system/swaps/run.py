"""Swaps between two versions under load, in both ways."""

import statistics
import subprocess
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from orchestrator.settings import Settings
from tests.support.model_client import ModelClient
from tests.support.project import PROJECT
from tests.support.service import Service, command, environment
from tests.support.signals import Samples, decoded
from tests.support.versions import FIRST, SECOND, TRACKS, manage, register
from tests.system.swaps.load import Load

out = Console(soft_wrap=True, highlight=False)


@dataclass
class Report:
    """What came of it.

    Attributes:
        repeated: requests to the model that had to be sent again.
        swaps: seconds of each, by the way it was made.
    """

    load: Load
    repeated: int = 0
    swaps: dict[str, list[float]] = field(default_factory=dict)
    minutes: float = 0.0

    def show(self) -> None:
        table = Table(box=None, show_header=False)
        for way, seconds in self.swaps.items():
            table.add_row(way, f"{len(seconds)} swaps, median {statistics.median(seconds):.1f} s")
        load = self.load
        for version, jobs in sorted(load.completed.items()):
            table.add_row(f"made by {version}", f"{jobs} jobs")
        table.add_row("that asked for it by name", f"{load.by_name} jobs")
        table.add_row("sent to the model again", f"{self.repeated} times")
        table.add_row("seconds a job", f"median {statistics.median(load.seconds):.1f}")
        table.add_row("", f"longest {max(load.seconds):.1f}")
        table.add_row("took", f"{self.minutes:.1f} minutes")
        table.add_row("failed, or made by another version than it says", f"{len(load.faults)}")
        out.print(table)
        for fault in load.faults:
            out.print(fault)


def run(service: Service, deploys: int, bare: int, clients: int, jobs_between: int) -> Report:
    """Swap between FIRST, which serves, and SECOND; the clients go on all the time.

    Args:
        service: on which nothing else runs.
        deploys: swaps by `musiclab model deploy`.
        bare: swaps by the management API alone.
        clients: that make music at the same time.
        jobs_between: two swaps, made by the newer version; without users, a swap proves nothing.
    """
    settings = service.settings
    began = time.monotonic()
    load = Load(service, _references(settings))
    report = Report(load)
    ways = [("musiclab model deploy", _deploy)] * deploys
    ways += [("management API alone", _swap_by_hand)] * bare
    with load.by(clients):
        default, other = FIRST, SECOND
        load.wait_for(default, jobs_between)
        for way, swap in ways:
            if swap is _swap_by_hand:
                load.stop_pinning()
            started = time.monotonic()
            swap(settings, default, other)
            seconds = time.monotonic() - started
            report.swaps.setdefault(way, []).append(seconds)
            default, other = other, default
            load.wait_for(default, jobs_between)
            jobs = sum(load.completed.values())
            out.print(f"{way}: {default} after {seconds:.1f} s; {jobs} jobs so far")
    report.repeated = service.attempts_repeated()
    report.minutes = (time.monotonic() - began) / 60
    return report


def _references(settings: Settings) -> dict[str, Samples]:
    """What each version makes of TRACKS, asked of TorchServe without a job."""
    client = ModelClient(settings, settings.key_file)
    register(client, SECOND)
    references = {}
    for version in (FIRST, SECOND):
        answer = client.predict(TRACKS, version)
        assert answer.status_code == 200, answer.text
        references[version] = decoded(answer.content)
    manage(client, "DELETE", f"/models/musiclab/{SECOND}")
    return references


def _deploy(settings: Settings, old: str, new: str) -> None:
    deployed = subprocess.run(
        command("model", "deploy", new),
        cwd=PROJECT,
        env=environment(settings),
        capture_output=True,
        text=True,
    )
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    out.print(deployed.stdout, end="")


def _swap_by_hand(settings: Settings, old: str, new: str) -> None:
    """As an engineer does who has only curl, and does not wait for anybody."""
    client = ModelClient(settings, settings.key_file)
    register(client, new)
    manage(client, "PUT", f"/models/musiclab/{new}/set-default")
    manage(client, "DELETE", f"/models/musiclab/{old}")
