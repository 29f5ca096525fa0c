"""Draws the figures as an SVG file."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.batch_sizes import BatchSizes
from benchmarks.end_to_end import CLIENTS, EndToEnd
from benchmarks.pipeline_speed import EAGER, PipelineSpeed

GRAY, BLUE, ORANGE = "#9aa5b1", "#3b6fb6", "#d9822b"


def draw(speed: PipelineSpeed, sizes: BatchSizes, service: EndToEnd, path: Path) -> None:
    """Write an SVG file: speed-up by variant, and jobs per second by batch size."""
    # Makes the file reproducible, and its text searchable.
    settings = {"svg.hashsalt": "musiclab", "svg.fonttype": "none", "font.family": "sans-serif"}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        names = list(speed.computed)
        ratios = [speed.speed_up(name, EAGER) for name in names]
        colors = [BLUE if name in speed.snr else GRAY for name in names]
        labels = [f"{ratio:.2f}x" for ratio in ratios]
        for number, name in enumerate(names):
            if name in speed.snr:
                labels[number] += f", {speed.lowest_snr(name):.0f} dB"
        left.bar_label(left.barh(names, ratios, color=colors), labels, padding=4)
        left.invert_yaxis()
        left.set_xlim(right=1.35 * max(ratios))
        left.set_title("One job: speed-up over eager, and SNR")

        batches = [str(size) for size in sizes.computed]
        throughput = [sizes.jobs_per_second(size) for size in sizes.computed]
        right.bar_label(right.bar(batches, throughput, color=BLUE), fmt="%.2f", padding=2)
        clients = service.eight.jobs_per_second
        right.axhline(
            clients,
            color=ORANGE,
            linestyle="--",
            label=f"{CLIENTS} clients, end to end: {clients:.2f}",
        )
        right.set_ylim(top=1.35 * max(*throughput, clients))
        right.set_xlabel("jobs per batch")
        right.set_title(f"Jobs per second, {sizes.precision}")
        right.legend(loc="upper right", frameon=False)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
