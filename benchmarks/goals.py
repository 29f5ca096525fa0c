"""What the figures should be, and whether they are."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.batch_sizes import BatchSizes
from benchmarks.end_to_end import SETTLED_AFTER, EndToEnd
from benchmarks.markdown import times
from benchmarks.pipeline_speed import EAGER, PipelineSpeed
from handlers.precision import Precision

# By precision: how many times as quick as eager, and the least signal-to-noise ratio in dB.
PIPELINE: dict[Precision, tuple[float, float]] = {"fp32": (2.0, 100.0), "bf16": (3.3, 33.0)}
ADDED_S = 0.3
SHARE = 0.8
FIRST_DONE_S = 15.0
FIRST_TO_TENTH = 1.5
PEAK_BYTES = 2.5e9
GROWTH = 1.1


@dataclass(frozen=True)
class Goal:
    """One figure beside what it should be.

    Attributes:
        met: None where it could not be measured.
    """

    name: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]


def goals(speed: PipelineSpeed, sizes: BatchSizes, whole: EndToEnd) -> list[Goal]:
    """Every goal, with what was measured."""
    return [*_of_pipeline(speed), *_of_service(speed, sizes, whole)]


def _of_pipeline(speed: PipelineSpeed) -> Iterator[Goal]:
    for precision, (ratio, least) in PIPELINE.items():
        name, fidelity = f"`{precision}` against `{EAGER}`", f"waveforms of `{precision}`"
        if precision in speed.snr:
            reached = speed.speed_up(precision, EAGER)
            snr = speed.least_snr(precision)
            yield Goal(name, f"at least {ratio}x", times(reached), reached >= ratio)
            yield Goal(fidelity, f"at least {least:g} dB", f"{snr:.1f} dB", snr >= least)
        else:
            yield Goal(name, f"at least {ratio}x", "no native bf16 here", None)
            yield Goal(fidelity, f"at least {least:g} dB", "no native bf16 here", None)


def _of_service(speed: PipelineSpeed, sizes: BatchSizes, whole: EndToEnd) -> Iterator[Goal]:
    for beside, added in (
        ("its pipeline in the model worker", whole.added),
        (
            f"the pipeline by itself ({speed.median(sizes.precision):.2f} s)",
            whole.job - speed.median(sizes.precision),
        ),
    ):
        yield Goal(
            f"one client's job, beside {beside}",
            f"at most {ADDED_S} s more",
            f"{added:.2f} s",
            added <= ADDED_S,
        )
    share = whole.eight.jobs_per_second / sizes.best
    yield Goal(
        f"eight clients' jobs a second, of the best batch size's ({sizes.best:.2f})",
        f"at least {SHARE:.0%}",
        f"{share:.1%}",
        share >= SHARE,
    )
    yield Goal(
        "`musiclab up` to the first finished job",
        f"at most {FIRST_DONE_S:g} s",
        f"{whole.first_done:.1f} s",
        whole.first_done <= FIRST_DONE_S,
    )
    ratio = whole.first_to_tenth
    yield Goal(
        "the first job against the tenth",
        f"at most {FIRST_TO_TENTH}x",
        times(ratio),
        ratio <= FIRST_TO_TENTH,
    )
    yield Goal(
        "memory of the model worker, at most",
        f"under {PEAK_BYTES / 1e9} GB",
        f"{whole.peak_bytes / 1e9:.2f} GB",
        whole.peak_bytes < PEAK_BYTES,
    )
    growth = whole.last_bytes / whole.settled_bytes
    yield Goal(
        f"the same after {len(whole.eight.jobs)} jobs against after {SETTLED_AFTER}",
        f"at most {GROWTH}x",
        times(growth),
        growth <= GROWTH,
    )
