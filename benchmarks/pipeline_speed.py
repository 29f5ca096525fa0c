"""Compares the pipeline's speed and output with those of plain PyTorch, using the same weights.

    python -m benchmarks.pipeline_speed

Each variant is loaded in its own process. In each of nine rounds, the variants compute the same job
one after the other while the rest are idle. Prints the times, the signal-to-noise ratio of the
waveforms relative to plain PyTorch, and the efficiency relative to the lower bound of
`benchmarks.floor`.
"""

import statistics
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks import floor, weights
from benchmarks.machine import OtherCpuUsage
from benchmarks.markdown import table, times
from benchmarks.sounds import PAIRS, snr_db
from benchmarks.variant import Computed, Name, Variant
from benchmarks.weights import Cascade
from handlers.precision import Precision

ROUNDS = 9
EAGER: Name = "eager"
SAME_MALLOC: Name = "eager, same malloc"


@dataclass(frozen=True)
class PipelineSpeed:
    """The measurements.

    Attributes:
        computed: one computation per round, by variant.
        snr: signal-to-noise ratio in dB relative to the eager variant, by precision, cascade and
            pair of sounds.
        flops: floating-point operations of one job, by stage.
        gemm: FLOP/s of large matrix products, by precision.
        elsewhere: share of the machine's CPU time that other processes used.
    """

    computed: dict[Name, list[Computed]]
    snr: dict[Precision, dict[Cascade, dict[str, float]]]
    flops: dict[str, int]
    gemm: dict[Precision, float]
    elsewhere: float

    def median(self, name: Name) -> float:
        """Median seconds per job."""
        return statistics.median(each.seconds for each in self.computed[name])

    def speed_up(self, name: Name, base: Name) -> float:
        """Speed-up over another variant, as the ratio of the medians."""
        return self.median(base) / self.median(name)

    def paired_speed_up(self, name: Name, base: Name) -> float:
        """Speed-up over another variant, as the median of the ratios within each round.

        Changes in the machine's speed between rounds do not affect it.
        """
        both = zip(self.computed[base], self.computed[name], strict=True)
        return statistics.median(slow.seconds / quick.seconds for slow, quick in both)

    def lowest_snr(self, precision: Precision) -> float:
        """The lowest signal-to-noise ratio over all cascades and pairs, in dB."""
        return min(min(snr.values()) for snr in self.snr[precision].values())

    def floor_seconds(self, precision: Precision) -> float:
        """Lower bound on the seconds per job, from the rate of large matrix products."""
        return sum(self.flops.values()) / self.gemm[precision]


def precision_of(name: Name) -> Precision:
    """Return the precision in which a variant computes."""
    return "bf16" if name == "bf16" else "fp32"


def measure() -> PipelineSpeed:
    precisions = floor.precisions()
    names: tuple[Name, ...] = (EAGER, SAME_MALLOC, *precisions)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {cascade: Path(scratch, cascade) for cascade in get_args(Cascade)}
        for cascade, folder in folders.items():
            folder.mkdir()
            weights.save(folder, cascade)
        computed, gemm, elsewhere = _run_rounds(names, precisions, folders["random"])
        for name in (EAGER, *precisions):
            with Variant(name, folders["starter"], jobs=1) as variant:
                _keep_waveforms(variant, name, folders["starter"])
        snr = {
            name: {cascade: _snr(name, folder) for cascade, folder in folders.items()}
            for name in precisions
        }
    return PipelineSpeed(computed, snr, floor.job_flops(), gemm, elsewhere)


def _run_rounds(
    names: Iterable[Name], precisions: Iterable[Precision], folder: Path
) -> tuple[dict[Name, list[Computed]], dict[Precision, float], float]:
    """Run the rounds; returns `computed`, `gemm` and `elsewhere` of PipelineSpeed.

    The rate of matrix products is measured in every round, and the highest is used. A temporary
    disturbance would otherwise make the lower bound too high.
    """
    computed: dict[Name, list[Computed]] = {name: [] for name in names}
    gemm: dict[Precision, float] = dict.fromkeys(precisions, 0.0)
    with ExitStack() as stack:
        variants = {name: stack.enter_context(Variant(name, folder, jobs=1)) for name in computed}
        for name, variant in variants.items():  # warm-up
            _keep_waveforms(variant, name, folder)
        others = OtherCpuUsage(variant.pid for variant in variants.values())
        for sounds in islice(cycle(PAIRS), ROUNDS):
            for name, variant in variants.items():
                computed[name].append(variant.compute(sounds))
            for precision, best in gemm.items():
                gemm[precision] = max(best, floor.gemm_rate(precision))
        return computed, gemm, others.share()


def _keep_waveforms(variant: Variant, name: Name, folder: Path) -> None:
    for number, sounds in enumerate(PAIRS):
        variant.compute(sounds, folder / f"{name} {number}.npy")


def _snr(name: Name, folder: Path) -> dict[str, float]:
    """Return a variant's signal-to-noise ratio relative to the eager variant, by pair."""
    return {
        sounds: snr_db(*(np.load(folder / f"{each} {number}.npy") for each in (EAGER, name)))
        for number, sounds in enumerate(PAIRS)
    }


def tables(speed: PipelineSpeed) -> str:
    """Format the measurements as Markdown."""
    text = (
        "`eager` is the encodec library's network with its weight norm, one clip at a time, in "
        "fp32 and inference mode. `eager, same malloc` is `eager` with the service's malloc "
        "settings. `fp32` and `bf16` are the service's pipeline in these precisions. A job is two "
        f"clips of 16 s with the default cascade. Times are medians of {ROUNDS} rounds in which "
        "the variants take turns; the medians of the ratios within each round are in parentheses. "
        "Efficiency is the lower bound below divided by the time.\n\n"
    )
    if "bf16" not in speed.computed:
        text += "`bf16` is omitted: this machine does not support it natively.\n\n"
    return text + _seconds_table(speed) + _snr_table(speed) + _floor(speed)


def _seconds_table(speed: PipelineSpeed) -> str:
    columns = ("variant", "seconds", *speed.flops)
    return table(
        (*columns, f"vs `{EAGER}`", f"vs `{SAME_MALLOC}`", "efficiency"),
        [
            (
                f"`{name}`",
                f"{speed.median(name):.3f}",
                *(
                    f"{statistics.median(each.stages[stage] for each in computed):.3f}"
                    for stage in speed.flops
                ),
                *(
                    f"{times(speed.speed_up(name, base))} "
                    f"({times(speed.paired_speed_up(name, base))})"
                    for base in (EAGER, SAME_MALLOC)
                ),
                f"{speed.floor_seconds(precision_of(name)) / speed.median(name):.0%}",
            )
            for name, computed in speed.computed.items()
        ],
    )


def _snr_table(speed: PipelineSpeed) -> str:
    text = (
        "Signal-to-noise ratio of the waveforms relative to `eager`. The starter cascade blends "
        "the tracks. The random cascade, with which the times are measured, drowns them out with "
        "its own output.\n\n"
    )
    return text + table(
        ("cascade", "tracks", *(f"`{name}`" for name in speed.snr)),
        [
            (cascade, sounds, *(f"{snr[cascade][sounds]:.1f} dB" for snr in speed.snr.values()))
            for cascade in get_args(Cascade)
            for sounds in PAIRS
        ],
    )


def _floor(speed: PipelineSpeed) -> str:
    counts = ", ".join(f"{stage} {count / 1e9:.1f}" for stage, count in speed.flops.items())
    rates = ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s in {precision} ({speed.floor_seconds(precision):.3f} s per job)"
        for precision, rate in speed.gemm.items()
    )
    return (
        f"Lower bound: a job is {sum(speed.flops.values()) / 1e9:.1f} GFLOP ({counts}), and this "
        f"machine multiplies large matrices at {rates}.\n\n"
    )


def main() -> None:
    print(tables(measure()))


if __name__ == "__main__":
    main()
