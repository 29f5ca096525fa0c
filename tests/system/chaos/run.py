"""One run: submissions, injected faults, and a report."""

import random
import re
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from orchestrator.archives.packing import find_packed, pack
from orchestrator.archives.packing_inputs import MODEL_CONFIG, choose_inputs
from orchestrator.database.schema import events, jobs
from orchestrator.settings import Settings
from tests.system.chaos.checks import Check, check, rows
from tests.system.chaos.commands import wait_ready
from tests.system.chaos.load import Load
from tests.system.chaos.systems import SYSTEMS, System

CHOSEN = {
    "rate_limit": 0,
    "max_queued": 0,
    "max_stored_gb": 0.0,
    "reuse_results": False,
}
INTERVAL = (0.5, 2.5)  # between faults, in median running times of a job
DURING_A_SUBMISSION = 1 / 3  # share of faults injected shortly after a request is sent
SUBMISSION_S = 0.3
DONE_WITHIN_S = 300

out = Console(soft_wrap=True, highlight=False)


@dataclass
class Report:
    """The results of a run."""

    injected: Counter[str] = field(default_factory=Counter)
    figures: dict[str, object] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        return [
            f"{each.name}: {violation}" for each in self.checks for violation in each.violations
        ]

    def show(self, title: str) -> None:
        table = Table("", "count", "violations", title=title)
        for name, number in sorted(self.injected.items()):
            table.add_row(f"fault: {name}", str(number), "")
        for name, figure in self.figures.items():
            table.add_row(name, str(figure), "")
        table.add_section()
        for each in self.checks:
            table.add_row(each.name, str(each.passed), str(len(each.violations)))
        out.print(table)
        for violation in self.violations:
            out.print(f"VIOLATION {violation}", markup=False)


def run(backend: str, kills: int, seed: int, settings: Settings, folder: Path) -> Report:
    """Inject faults at random moments while jobs are submitted, then check that no job was lost.

    Args:
        backend: a name in SYSTEMS.
        kills: number of times to kill a MusicLab process; other faults are injected in addition.
        seed: seed of all random choices.
        settings: settings with directories and ports used by this run alone.
        folder: directory for the logs.
    """
    began = time.monotonic()
    rng = random.Random(seed)  # noqa: S311
    report = Report()
    chosen = settings.model_copy(update=CHOSEN | {"model_store": _unbatched_store(settings)})
    with SYSTEMS[backend](chosen, folder) as system:
        load = Load(system.settings.api_port)
        with load.running():
            for name, inject in system.faults(kills, rng):
                _wait_for_next_fault(load, rng)
                out.print(f"{time.monotonic() - began:6.1f} s  {name}")
                inject()
                report.injected[name] += 1
                wait_ready(*system.commands)
            load.finish(DONE_WITHIN_S)
        report.checks.append(Check("client observations", len(load.accepted), load.violations))
        report.figures = _figures(system, load)
        report.checks += check(system, list(load.accepted.values()))
    report.figures["seconds"] = round(time.monotonic() - began)
    return report


def _unbatched_store(settings: Settings) -> Path:
    """A model store with the current archive, changed to a batch size of one.

    On few CPUs, each job then takes seconds. While a worker generates one, its next job waits
    for the model, and the others wait in the queue.
    """
    inputs = choose_inputs(settings)
    packed = find_packed(settings, inputs)
    if packed is None:
        packed = pack(settings, inputs)
    store = settings.run_dir / "unbatched"
    store.mkdir(parents=True)
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(store / packed.name, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == MODEL_CONFIG:
                content, changed = re.subn(rb"(?m)^batchSize: \d+$", b"batchSize: 1", content)
                assert changed == 1, f"{entry.filename} has no batchSize line; adapt this test"
            new.writestr(entry, content)
    return store


def _wait_for_next_fault(load: Load, rng: random.Random) -> None:
    time.sleep(rng.uniform(*INTERVAL) * load.job_seconds())
    if rng.random() < DURING_A_SUBMISSION:
        load.wait_sending(load.job_seconds())
        time.sleep(rng.uniform(0, SUBMISSION_S))


def _figures(system: System, load: Load) -> dict[str, object]:
    leased = rows(system, sa.select(jobs.c.lease, jobs.c.attempts))
    again = sa.select(events.c.document).where(events.c.revision > 1)
    retries = [row for row in rows(system, again) if row.document["status"] == "queued"]
    return {
        "requests submitted": load.submitted,
        "accepted": len(load.accepted),
        "of these, confirmed only on a retry": len(load.repeated),
        "responses that asked to retry": load.rejections,
        "jobs returned to the queue": len(retries),
        "jobs taken over": sum(row.lease - 1 for row in leased) - len(retries),
        "maximum leases of one job": max(row.lease for row in leased),
        "maximum attempts at one job": max(row.attempts for row in leased),
        "median seconds per job": round(load.job_seconds(), 1),
    }
