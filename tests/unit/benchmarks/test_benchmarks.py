"""Calculations of the benchmarks in which errors would otherwise go unnoticed."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import weights
from benchmarks.batch_sizes import BatchSizes
from benchmarks.end_to_end import TENTH_JOB, EndToEnd
from benchmarks.floor import LstmProducts, job_flops
from benchmarks.goals import PIPELINE, goals
from benchmarks.load import Job, Load
from benchmarks.pipeline_speed import PipelineSpeed
from benchmarks.sounds import LOUDNESS, PAIRS, SOUNDS, pair, snr_db
from benchmarks.variant import Computed, Name
from tests.support.signals import SEGMENT
from tests.support.tracks import correlation


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_are_reproducible(name: str) -> None:
    sound = SOUNDS[name]()
    assert np.array_equal(sound, SOUNDS[name]())
    assert len(sound) == SEGMENT
    assert np.abs(sound).max() <= 1
    assert np.sqrt((sound**2).mean()) == pytest.approx(LOUDNESS, rel=1e-3)


def test_the_sounds_of_a_pair_are_uncorrelated() -> None:
    for name in PAIRS:
        assert abs(correlation(*pair(name))) < 0.1


def test_the_signal_to_noise_ratio_is_in_decibels() -> None:
    signal = np.array([1.0, -1.0, 1.0, -1.0], dtype=np.float32)
    assert snr_db(signal, signal) == math.inf
    assert snr_db(signal, signal * 1.1) == pytest.approx(20, abs=1e-4)
    assert snr_db(signal, signal + 0.01) == pytest.approx(40, abs=1e-3)
    assert snr_db(10 * signal, 10 * signal + 0.1) == pytest.approx(40, abs=1e-3)


def test_one_job_is_182_gflop() -> None:
    assert {stage: round(count / 1e9) for stage, count in job_flops().items()} == {
        "encode": 95,
        "cascade": 39,
        "decode": 48,
    }


FRAMES, WIDTH, BATCH = 50, 64, 2
CHANNELS_FIRST, TIME_FIRST = (BATCH, WIDTH, FRAMES), (FRAMES, BATCH, WIDTH)


@pytest.mark.parametrize(
    ("part", "shape", "multiplications"),
    [
        (nn.Conv1d(WIDTH, 32, 7, padding=3), CHANNELS_FIRST, FRAMES * WIDTH * 32 * 7),
        # Each frame contributes to one sample per kernel tap.
        (nn.ConvTranspose1d(WIDTH, 32, 8, stride=4), CHANNELS_FIRST, FRAMES * WIDTH * 32 * 8),
        (
            nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, batch_first=True),
            (BATCH, FRAMES, WIDTH),
            # Queries, keys, values, output and feed-forward; scores and their weighted sums.
            FRAMES * WIDTH**2 * (4 + 8) + 2 * FRAMES**2 * WIDTH,
        ),
        # Two layers; each computes four gates from its input and its state.
        (LstmProducts(nn.LSTM(WIDTH, WIDTH, 2)), TIME_FIRST, 2 * FRAMES * 2 * WIDTH * 4 * WIDTH),
    ],
    ids=["convolution", "transposed convolution", "attention", "LSTM"],
)
def test_every_kind_of_product_is_counted(
    part: nn.Module, shape: tuple[int, ...], multiplications: int
) -> None:
    part.to("meta").eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        part(torch.zeros(shape, device="meta"))
    assert counter.get_total_flops() == BATCH * 2 * multiplications


def test_the_plain_codec_matches_the_folded_one(tmp_path: Path) -> None:
    weights.save(tmp_path, "random")
    sound = torch.from_numpy(SOUNDS["chords"]()[:24_000])[None, None]
    plain, folded = weights.plain_codec(tmp_path), weights.folded_codec(tmp_path)
    norms = [name for name in plain.state_dict() if name.endswith("weight_g")]
    assert len(norms) == len([name for name in folded.state_dict() if "conv" in name]) / 2
    with torch.inference_mode():
        expected = folded.decode(folded.encode(sound))
        torch.testing.assert_close(plain.decode(plain.encode(sound)), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.05


def test_the_random_cascade_contributes_to_the_output(tmp_path: Path) -> None:
    weights.save(tmp_path, "random")
    state = weights.load_model(tmp_path).state_dict()
    projections = [weight for name, weight in state.items() if name.endswith("output_proj.weight")]
    assert len(projections) == 2
    for weight in projections:
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1)
    assert all(weight.any() for name, weight in state.items() if name.endswith("norm.weight"))


def test_speed_ups_are_calculated_from_medians() -> None:
    computed: dict[Name, list[Computed]] = {
        "eager": [Computed(seconds, {}, 0) for seconds in (4.0, 6.0, 20.0)],
        "fp32": [Computed(seconds, {}, 0) for seconds in (1.0, 3.0, 4.0)],
    }
    speed = PipelineSpeed(computed, {}, {"encode": 60, "decode": 40}, {"fp32": 50.0}, 0)
    assert speed.speed_up("fp32", "eager") == 2
    assert speed.paired_speed_up("fp32", "eager") == 4
    assert speed.floor_seconds("fp32") == 2


def test_throughput_is_measured_from_the_first_creation_to_the_last_end() -> None:
    stages = {"queued": 0.5, "generate": 2.0}
    jobs = [Job(11.0, 14.0, stages), Job(10.0, 15.0, stages)]
    load = Load(jobs, {}, {"encode": 1.0, "decode": 0.5}, {}, 0)
    assert (load.seconds, load.jobs_per_second, load.pipeline) == (5.0, 0.4, 1.5)
    assert jobs[0].unaccounted == 0.5


def figures(
    seconds: dict[Name, float], snr: float, jobs: tuple[float, float], worker_bytes: int
) -> tuple[PipelineSpeed, BatchSizes, EndToEnd]:
    """Measurements with these durations; `jobs`: seconds of the first job and of each later one."""
    computed = {name: [Computed(each, {}, 0)] for name, each in seconds.items()}
    batch = {1: [Computed(1.0, {}, 0)]}
    first, other = jobs
    one = [
        Load([Job(10.0, 10.0 + each, {})], {}, {"encode": 1.0}, {}, 0)
        for each in (first, *[other] * TENTH_JOB)
    ]
    eight = Load([Job(20.0, 20.0 + other, {})], {}, {}, {}, 0)
    return (
        PipelineSpeed(
            computed,
            snr={
                name: {"random": {"drums": 200.0, "chords": snr}, "starter": {"drums": 300.0}}
                for name in PIPELINE
                if name in seconds
            },
            flops={},
            gemm={},
            elsewhere=0,
        ),
        BatchSizes("bf16" if "bf16" in seconds else "fp32", batch, {}),
        EndToEnd(0, 8.0, 10.0 * first, one, eight, 2 * 10**9, worker_bytes, worker_bytes),
    )


def test_good_figures_meet_all_goals() -> None:
    good = goals(*figures({"eager": 4, "fp32": 1.9, "bf16": 1}, 101, (1.4, 1.2), 2_100_000_000))
    assert [goal.name for goal in good if goal.met is not True] == []
    assert len(good) == 11


def test_bad_figures_miss_all_goals() -> None:
    bad = goals(*figures({"eager": 4, "fp32": 2.1, "bf16": 1.3}, 32, (2.7, 1.7), 2_600_000_000))
    assert [goal.name for goal in bad if goal.met is not False] == []


def test_bf16_goals_are_not_evaluated_without_bf16() -> None:
    without = goals(*figures({"eager": 4, "fp32": 1}, 101, (1.4, 1.2), 2_100_000_000))
    assert [goal.name for goal in without if goal.met is None] == [
        "speed-up of `bf16` over `eager`",
        "SNR of `bf16`",
    ]
