"""Performance goals and their evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.batch_sizes import BatchSizes
from benchmarks.end_to_end import SETTLED_AFTER, EndToEnd
from benchmarks.markdown import times
from benchmarks.pipeline_speed import EAGER, PipelineSpeed
from handlers.precision import Precision

# By precision: the minimum speed-up over eager and the minimum signal-to-noise ratio in dB.
PIPELINE: dict[Precision, tuple[float, float]] = {"fp32": (2.0, 100.0), "bf16": (3.3, 33.0)}
MAX_OVERHEAD_S = 0.3
MIN_THROUGHPUT_SHARE = 0.8
MAX_FIRST_DONE_S = 15.0
MAX_FIRST_TO_TENTH = 1.5
MAX_PEAK_BYTES = 2.5e9
MAX_GROWTH = 1.1


@dataclass(frozen=True)
class Goal:
    """A measured figure and its goal.

    Attributes:
        met: None if the figure could not be measured.
    """

    name: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]


def goals(speed: PipelineSpeed, sizes: BatchSizes, service: EndToEnd) -> list[Goal]:
    """Evaluate all goals."""
    return [*_pipeline_goals(speed), *_service_goals(speed, sizes, service)]


def _pipeline_goals(speed: PipelineSpeed) -> Iterator[Goal]:
    for precision, (ratio, least) in PIPELINE.items():
        name, fidelity = f"speed-up of `{precision}` over `{EAGER}`", f"SNR of `{precision}`"
        if precision in speed.snr:
            reached = speed.speed_up(precision, EAGER)
            snr = speed.lowest_snr(precision)
            yield Goal(name, f"at least {ratio}x", times(reached), reached >= ratio)
            yield Goal(fidelity, f"at least {least:g} dB", f"{snr:.1f} dB", snr >= least)
        else:
            yield Goal(name, f"at least {ratio}x", "no native bf16", None)
            yield Goal(fidelity, f"at least {least:g} dB", "no native bf16", None)


def _service_goals(speed: PipelineSpeed, sizes: BatchSizes, service: EndToEnd) -> Iterator[Goal]:
    for baseline, added in (
        ("pipeline in the TorchServe worker", service.overhead),
        (
            f"standalone pipeline ({speed.median(sizes.precision):.2f} s)",
            service.job - speed.median(sizes.precision),
        ),
    ):
        yield Goal(
            f"overhead per job over the {baseline}, one client",
            f"at most {MAX_OVERHEAD_S} s",
            f"{added:.2f} s",
            added <= MAX_OVERHEAD_S,
        )
    share = service.eight.jobs_per_second / sizes.best
    yield Goal(
        f"throughput of eight clients relative to the best batch size ({sizes.best:.2f} jobs/s)",
        f"at least {MIN_THROUGHPUT_SHARE:.0%}",
        f"{share:.1%}",
        share >= MIN_THROUGHPUT_SHARE,
    )
    yield Goal(
        "time from `musiclab up` to the first completed job",
        f"at most {MAX_FIRST_DONE_S:g} s",
        f"{service.first_done:.1f} s",
        service.first_done <= MAX_FIRST_DONE_S,
    )
    ratio = service.first_to_tenth
    yield Goal(
        "time of the first job relative to the tenth",
        f"at most {MAX_FIRST_TO_TENTH}x",
        times(ratio),
        ratio <= MAX_FIRST_TO_TENTH,
    )
    yield Goal(
        "peak memory of the TorchServe worker",
        f"under {MAX_PEAK_BYTES / 1e9} GB",
        f"{service.peak_bytes / 1e9:.2f} GB",
        service.peak_bytes < MAX_PEAK_BYTES,
    )
    growth, jobs = service.last_bytes / service.settled_bytes, len(service.eight.jobs)
    yield Goal(
        f"memory of the TorchServe worker after {jobs} jobs relative to {SETTLED_AFTER} jobs",
        f"at most {MAX_GROWTH}x",
        times(growth),
        growth <= MAX_GROWTH,
    )
