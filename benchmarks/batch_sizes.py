"""What do jobs gain from being computed together, and what memory does that take?

    python -m benchmarks.batch_sizes

Computes batches of several sizes with the precision that the service chooses, each size in a
process of its own. Prints the time of a batch and of each job in it, and the process's peak memory.
"""

import statistics
import tempfile
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks import weights
from benchmarks.machine import Elsewhere
from benchmarks.markdown import table
from benchmarks.sounds import PAIRS
from benchmarks.variant import Computed, Variant
from handlers.precision import Precision, choose_precision

SIZES = (1, 2, 4, 8)
BATCHES = 5


@dataclass(frozen=True)
class BatchSizes:
    """What was measured.

    Attributes:
        precision: the one that the service chooses on this machine.
        computed: by size, each batch.
        elsewhere: by size, the share of the machine's CPU time that others took meanwhile.
    """

    precision: Precision
    computed: dict[int, list[Computed]]
    elsewhere: dict[int, float]

    def seconds(self, size: int) -> float:
        """The median of a batch."""
        return statistics.median(each.seconds for each in self.computed[size])

    def jobs_per_second(self, size: int) -> float:
        return size / self.seconds(size)

    @property
    def best(self) -> float:
        """Jobs a second at the size that has most of them."""
        return max(self.jobs_per_second(size) for size in self.computed)


def measure() -> BatchSizes:
    precision = choose_precision(None, torch.device("cpu"))
    computed, elsewhere = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights.save(folder, "random")
        for size in SIZES:
            with Variant(precision, folder, size) as variant:
                variant.compute(next(iter(PAIRS)))  # which warms it up
                others = Elsewhere([variant.pid])
                computed[size] = [
                    variant.compute(sounds) for sounds in islice(cycle(PAIRS), BATCHES)
                ]
                elsewhere[size] = others.share()
    return BatchSizes(precision, computed, elsewhere)


def tables(sizes: BatchSizes) -> str:
    """What was measured, for people."""
    text = (
        f"The service's pipeline in {sizes.precision}, medians of {BATCHES} batches, each size in "
        "a process of its own.\n\n"
    )
    return text + table(
        ("jobs in a batch", "seconds of a batch", "seconds a job", "jobs a second", "peak memory"),
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
