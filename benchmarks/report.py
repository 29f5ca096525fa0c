"""Writes the folder results/: tables for people, the raw figures, and a picture."""

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
    machine: dict[str, str], speed: PipelineSpeed, sizes: BatchSizes, whole: EndToEnd
) -> Path:
    """Write the figures of one run; returns the page that shows them."""
    RESULTS.mkdir(exist_ok=True)
    raw = {
        "machine": machine,
        "pipeline_speed": asdict(speed),
        "batch_sizes": asdict(sizes),
        "end_to_end": asdict(whole),
    }
    (RESULTS / "figures.json").write_text(json.dumps(raw, indent=1) + "\n")
    draw(speed, sizes, whole, RESULTS / "speed.svg")
    page = RESULTS / "README.md"
    page.write_text(_page(machine, speed, sizes, whole))
    return page


def _page(machine: dict[str, str], speed: PipelineSpeed, sizes: BatchSizes, whole: EndToEnd) -> str:
    verdicts = [
        (goal.name, goal.wanted, goal.measured, goal.verdict) for goal in goals(speed, sizes, whole)
    ]
    sections = {
        "Goals": table(("figure", "goal", "measured", ""), verdicts),
        "One job": pipeline_speed.tables(speed),
        "Batches": batch_sizes.tables(sizes),
        "End to end": end_to_end.tables(whole),
        "The machine": table(("", ""), machine.items()),
    }
    disturbed = max(
        speed.elsewhere,
        *sizes.elsewhere.values(),
        whole.eight.elsewhere,
        *(load.elsewhere for load in whole.one),
    )
    text = (
        "# How fast MusicLab is\n\nThe latest run of `make bench`. Other processes took up to "
        f"{disturbed:.0%} of the machine's CPU time meanwhile.\n\n![](speed.svg)\n\n"
    )
    text += "".join(f"## {title}\n\n{section}" for title, section in sections.items())
    return text.rstrip("\n") + "\n"
