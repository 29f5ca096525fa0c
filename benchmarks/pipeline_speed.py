"""How quickly is one job computed, beside plain PyTorch with the same weights?

    python -m benchmarks.pipeline_speed

The variants are loaded in a process each, and take turns: nine rounds, in each of which every one
computes the same job while the others wait. Prints what they took, how far the waveforms lie from
those of plain PyTorch, and which share of the machine's floor each one reaches.
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
from benchmarks.machine import Elsewhere
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
    """What was measured.

    Attributes:
        computed: by variant, one of each round.
        snr: by precision, cascade and pair, in dB against the waveform of the eager variant.
        flops: of one job, by stage.
        gemm: by precision, the FLOP/s of large matrix products.
        elsewhere: the share of the machine's CPU time that other processes took meanwhile.
    """

    computed: dict[Name, list[Computed]]
    snr: dict[Precision, dict[Cascade, dict[str, float]]]
    flops: dict[str, int]
    gemm: dict[Precision, float]
    elsewhere: float

    def median(self, name: Name) -> float:
        """Seconds of a job."""
        return statistics.median(each.seconds for each in self.computed[name])

    def speed_up(self, name: Name, base: Name) -> float:
        """How many times as quick as another variant it is, by the medians."""
        return self.median(base) / self.median(name)

    def paired_speed_up(self, name: Name, base: Name) -> float:
        """The same as the median over the rounds, in each of which the machine was as it was."""
        both = zip(self.computed[base], self.computed[name], strict=True)
        return statistics.median(slow.seconds / quick.seconds for slow, quick in both)

    def least_snr(self, precision: Precision) -> float:
        """That of the pair which fares worst, in dB."""
        return min(min(snr.values()) for snr in self.snr[precision].values())

    def floor_seconds(self, precision: Precision) -> float:
        """What a job would take if it were nothing but large matrix products."""
        return sum(self.flops.values()) / self.gemm[precision]


def precision_of(name: Name) -> Precision:
    """In what precision a variant computes."""
    return "bf16" if name == "bf16" else "fp32"


def measure() -> PipelineSpeed:
    precisions = floor.precisions()
    names: tuple[Name, ...] = (EAGER, SAME_MALLOC, *precisions)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {cascade: Path(scratch, cascade) for cascade in get_args(Cascade)}
        for cascade, folder in folders.items():
            folder.mkdir()
            weights.save(folder, cascade)
        computed, gemm, elsewhere = _take_turns(names, precisions, folders["random"])
        for name in (EAGER, *precisions):
            with Variant(name, folders["starter"], jobs=1) as variant:
                _keep_waveforms(variant, name, folders["starter"])
        snr = {
            name: {cascade: _snr(name, folder) for cascade, folder in folders.items()}
            for name in precisions
        }
    return PipelineSpeed(computed, snr, floor.job_flops(), gemm, elsewhere)


def _take_turns(
    names: Iterable[Name], precisions: Iterable[Precision], folder: Path
) -> tuple[dict[Name, list[Computed]], dict[Precision, float], float]:
    """What each variant took in each round, and what PipelineSpeed calls gemm and elsewhere.

    The machine's own speed is measured in every round too, and the best is taken: what disturbs it
    for a while would otherwise make the floor too high.
    """
    computed: dict[Name, list[Computed]] = {name: [] for name in names}
    gemm: dict[Precision, float] = dict.fromkeys(precisions, 0.0)
    with ExitStack() as stack:
        variants = {name: stack.enter_context(Variant(name, folder, jobs=1)) for name in computed}
        for name, variant in variants.items():  # which warms it up
            _keep_waveforms(variant, name, folder)
        others = Elsewhere(variant.pid for variant in variants.values())
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
    """How well a variant made the music that the eager one made, by pair."""
    return {
        sounds: snr_db(*(np.load(folder / f"{each} {number}.npy") for each in (EAGER, name)))
        for number, sounds in enumerate(PAIRS)
    }


def tables(speed: PipelineSpeed) -> str:
    """What was measured, for people."""
    text = (
        "`eager` is encodec's own network with its weight norm, clip by clip, fp32, in inference "
        "mode; `eager, same malloc` is the same with the service's setting of malloc; `fp32` and "
        "`bf16` are the service's pipeline in these precisions. One job: two clips of 16 s, the "
        f"default cascade. Medians of {ROUNDS} rounds in turns; in brackets the median of the "
        "ratios within a round.\n\n"
    )
    if "bf16" not in speed.computed:
        text += "`bf16` was left out: this machine does not compute it natively.\n\n"
    return text + _seconds_table(speed) + _snr_table(speed) + _floor(speed)


def _seconds_table(speed: PipelineSpeed) -> str:
    columns = ("variant", "seconds", *speed.flops)
    return table(
        (*columns, f"to `{EAGER}`", f"to `{SAME_MALLOC}`", "of the floor"),
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
        "The waveforms against those of `eager`, as signal-to-noise ratio. The starter cascade "
        "blends the tracks; the random one, which the times are of, drowns them in a sound of its "
        "own.\n\n"
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
        f"{rate / 1e9:.0f} GFLOP/s in {precision}, or {speed.floor_seconds(precision):.3f} s a job"
        for precision, rate in speed.gemm.items()
    )
    return (
        f"The floor: one job is {sum(speed.flops.values()) / 1e9:.1f} GFLOP ({counts}), and this "
        f"machine multiplies large matrices at {rates}.\n\n"
    )


def main() -> None:
    print(tables(measure()))


if __name__ == "__main__":
    main()
