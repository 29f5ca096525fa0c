"""One run: submissions, blows, and what came of it."""

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
APART = (0.5, 2.5)  # from one blow to the next, in median times of a job
DURING_A_SUBMISSION = 1 / 3  # of the blows; what is lost then is an answer
SUBMISSION_S = 0.3
DONE_WITHIN_S = 300

out = Console(soft_wrap=True, highlight=False)


@dataclass
class Report:
    """What came of a run."""

    blows: Counter[str] = field(default_factory=Counter)
    figures: dict[str, object] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [f"{each.name}: {fault}" for each in self.checks for fault in each.faults]

    def show(self, title: str) -> None:
        table = Table("", "count", "wrong", title=title)
        for name, number in sorted(self.blows.items()):
            table.add_row(f"struck: {name}", str(number), "")
        for name, figure in self.figures.items():
            table.add_row(name, str(figure), "")
        table.add_section()
        for each in self.checks:
            table.add_row(each.name, str(each.right), str(len(each.faults)))
        out.print(table)
        for fault in self.faults:
            out.print(f"WRONG {fault}", markup=False)


def run(backend: str, kills: int, seed: int, settings: Settings, folder: Path) -> Report:
    """Strike at random moments while jobs are submitted; then look whether any was lost.

    Args:
        backend: a name in SYSTEMS.
        kills: of MusicLab's own processes; other things are struck besides.
        seed: of all that is random.
        settings: folders and ports of this run alone.
        folder: for the logs.
    """
    began = time.monotonic()
    chance = random.Random(seed)  # noqa: S311
    report = Report()
    chosen = settings.model_copy(update=CHOSEN | {"model_store": _store_of_one_by_one(settings)})
    with SYSTEMS[backend](chosen, folder) as system:
        load = Load(system.settings.api_port)
        with load.running():
            for name, strike in system.blows(kills, chance):
                _wait_for_the_moment(load, chance)
                out.print(f"{time.monotonic() - began:6.1f} s  {name}")
                strike()
                report.blows[name] += 1
                wait_ready(*system.commands)
            load.finish(DONE_WITHIN_S)
        report.checks.append(Check("what clients saw", len(load.accepted), load.faults))
        report.figures = _figures(system, load)
        report.checks += check(system, list(load.accepted.values()))
    report.figures["seconds"] = round(time.monotonic() - began)
    return report


def _store_of_one_by_one(settings: Settings) -> Path:
    """A model store with the present archive, but for batches of one.

    So a job takes seconds where there are few CPUs; and while one is generated, another one waits
    for the model and the rest in the queue.
    """
    inputs = choose_inputs(settings)
    packed = find_packed(settings, inputs)
    if packed is None:
        packed = pack(settings, inputs)
    store = settings.run_dir / "one-by-one"
    store.mkdir(parents=True)
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(store / packed.name, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == MODEL_CONFIG:
                content, changed = re.subn(rb"(?m)^batchSize: \d+$", b"batchSize: 1", content)
                assert changed == 1, f"{entry.filename} says batchSize in another way; adapt this"
            new.writestr(entry, content)
    return store


def _wait_for_the_moment(load: Load, chance: random.Random) -> None:
    time.sleep(chance.uniform(*APART) * load.job_seconds())
    if chance.random() < DURING_A_SUBMISSION:
        load.wait_sending(load.job_seconds())
        time.sleep(chance.uniform(0, SUBMISSION_S))


def _figures(system: System, load: Load) -> dict[str, object]:
    taken = rows(system, sa.select(jobs.c.lease, jobs.c.attempts))
    again = sa.select(events.c.document).where(events.c.revision > 1)
    retries = [row for row in rows(system, again) if row.document["status"] == "queued"]
    return {
        "requests submitted": load.submitted,
        "accepted": len(load.accepted),
        "of them, answered only when repeated": len(load.repeated),
        "answers that said to try again": load.refusals,
        "jobs put back for another try": len(retries),
        "jobs taken over": sum(row.lease - 1 for row in taken) - len(retries),
        "times that one job was taken, at most": max(row.lease for row in taken),
        "attempts at one job, at most": max(row.attempts for row in taken),
        "median seconds of a job": round(load.job_seconds(), 1),
    }
