"""Writes benchmarks/results/: a page of tables, the raw figures and a plot."""

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks import batch_sizes, end_to_end, pipeline_speed
from benchmarks.batch_sizes import BatchSizes
from benchmarks.end_to_end import EndToEnd
from benchmarks.goals import goals
from benchmarks.markdown import table
from benchmarks.pipeline_speed import PipelineSpeed
from benchmarks.plot import draw

RESULTS = Path(__file__).with_name("results")


def write(
    machine: dict[str, str], speed: PipelineSpeed, sizes: BatchSizes, service: EndToEnd
) -> Path:
    """Write the results of one run; returns the path of the page."""
    RESULTS.mkdir(exist_ok=True)
    raw = {
        "machine": machine,
        "pipeline_speed": asdict(speed),
        "batch_sizes": asdict(sizes),
        "end_to_end": asdict(service),
    }
    (RESULTS / "figures.json").write_text(json.dumps(raw, indent=1) + "\n")
    draw(speed, sizes, service, RESULTS / "speed.svg")
    page = RESULTS / "README.md"
    page.write_text(_page(machine, speed, sizes, service))
    return page


def _page(
    machine: dict[str, str], speed: PipelineSpeed, sizes: BatchSizes, service: EndToEnd
) -> str:
    verdicts = [
        (goal.name, goal.wanted, goal.measured, goal.verdict)
        for goal in goals(speed, sizes, service)
    ]
    sections = {
        "Goals": table(("figure", "goal", "measured", ""), verdicts),
        "One job": pipeline_speed.tables(speed),
        "Batches": batch_sizes.tables(sizes),
        "End to end": end_to_end.tables(service),
        "Machine": table(("", ""), machine.items()),
    }
    other_share = max(
        speed.elsewhere,
        *sizes.elsewhere.values(),
        service.eight.elsewhere,
        *(load.elsewhere for load in service.one),
    )
    text = (
        "# Performance of MusicLab\n\nResults of the latest run of `make bench`. Other processes "
        f"used up to {other_share:.0%} of the machine's CPU time during the run.\n\n"
        "![](speed.svg)\n\n"
    )
    text += "".join(f"## {title}\n\n{section}" for title, section in sections.items())
    return text.rstrip("\n") + "\n"
