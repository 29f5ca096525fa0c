"""Measures throughput and peak memory of the pipeline by batch size.

    python -m benchmarks.batch_sizes

Computes batches of several sizes in the precision that the service chooses, each size in a separate
process. Prints the time per batch and per job, and the peak memory of the process.
"""

import statistics
import tempfile
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks import weights
from benchmarks.machine import OtherCpuUsage
from benchmarks.markdown import table
from benchmarks.sounds import PAIRS
from benchmarks.variant import Computed, Variant
from handlers.precision import Precision, choose_precision

SIZES = (1, 2, 4, 8)
BATCHES = 5


@dataclass(frozen=True)
class BatchSizes:
    """The measurements.

    Attributes:
        precision: the precision that the service chooses on this machine.
        computed: the batches, by batch size.
        elsewhere: share of the machine's CPU time that other processes used, by batch size.
    """

    precision: Precision
    computed: dict[int, list[Computed]]
    elsewhere: dict[int, float]

    def seconds(self, size: int) -> float:
        """Median seconds per batch."""
        return statistics.median(each.seconds for each in self.computed[size])

    def jobs_per_second(self, size: int) -> float:
        return size / self.seconds(size)

    @property
    def best(self) -> float:
        """Highest number of jobs per second over all batch sizes."""
        return max(self.jobs_per_second(size) for size in self.computed)


def measure() -> BatchSizes:
    precision = choose_precision(None, torch.device("cpu"))
    computed, elsewhere = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights.save(folder, "random")
        for size in SIZES:
            with Variant(precision, folder, size) as variant:
                variant.compute(next(iter(PAIRS)))  # warm-up
                others = OtherCpuUsage([variant.pid])
                computed[size] = [
                    variant.compute(sounds) for sounds in islice(cycle(PAIRS), BATCHES)
                ]
                elsewhere[size] = others.share()
    return BatchSizes(precision, computed, elsewhere)


def tables(sizes: BatchSizes) -> str:
    """Format the measurements as Markdown."""
    text = (
        f"The service's pipeline in {sizes.precision}. Medians of {BATCHES} batches; each batch "
        "size runs in a separate process.\n\n"
    )
    return text + table(
        (
            "jobs per batch",
            "seconds per batch",
            "seconds per job",
            "jobs per second",
            "peak memory",
        ),
        [
            (
                size,
                f"{sizes.seconds(size):.3f}",
                f"{sizes.seconds(size) / size:.3f}",
                f"{sizes.jobs_per_second(size):.3f}",
                f"{max(each.peak_bytes for each in computed) / 1e9:.2f} GB",
            )
            for size, computed in sizes.computed.items()
        ],
    )


def main() -> None:
    print(tables(measure()))


if __name__ == "__main__":
    main()
