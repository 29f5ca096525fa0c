"""Computes jobs with one variant of the pipeline in a separate, long-running process.

    python -m benchmarks.variant NAME WEIGHTS JOBS

Reads a JSON array per line from standard input: the name of a pair of sounds, and a file or null.
For each line it computes a batch of JOBS jobs of that pair, writes the first waveform to the file,
and prints the measurements as one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks import weights
from benchmarks.machine import PROJECT, peak_bytes
from benchmarks.sounds import PAIRS, pair
from handlers.codec.memory import keep_activations_in_heap
from handlers.pipeline import Generated, Pipeline

# Plain PyTorch, plain PyTorch with the service's malloc settings, and the service's pipeline by
# precision.
Name = Literal["eager", "eager, same malloc", "fp32", "bf16"]

Compute = Callable[[Tensor, Tensor], Generated]
# Prefixes of the environment variables that change malloc.
MALLOC_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD")


@dataclass(frozen=True)
class Computed:
    """Time and memory of one computation.

    Attributes:
        seconds: total wall time.
        stages: seconds by stage.
        peak_bytes: peak resident memory of the process.
    """

    seconds: float
    stages: dict[str, float]
    peak_bytes: int


class Variant:
    """A process that runs one variant. The first computation is its warm-up.

    Args:
        name: the variant.
        folder: directory of the weights.
        jobs: batch size.
    """

    def __init__(self, name: Name, folder: Path, jobs: int) -> None:
        environment = {
            key: text for key, text in os.environ.items() if not key.startswith(MALLOC_VARIABLES)
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.variant", name, str(folder), str(jobs)],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._name = name

    @property
    def pid(self) -> int:
        return self._process.pid

    def compute(self, sounds: str, waveform: Path | None = None) -> Computed:
        """Compute a batch of a pair; writes the first waveform to the file `waveform` if given."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(
            json.dumps([sounds, waveform and str(waveform)]), file=self._process.stdin, flush=True
        )
        line = self._process.stdout.readline()
        assert line, f"the process of the variant {self._name!r} exited; its error is above"
        return Computed(**json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # closes its standard input, which makes it exit


def load(name: Name, folder: Path) -> Compute:
    """Load a variant."""
    if name != "eager":
        keep_activations_in_heap()
    if name == "eager" or name == "eager, same malloc":
        return _eager(folder)
    codec, model = weights.folded_codec(folder), weights.load_model(folder)
    return Pipeline(codec, model, torch.device("cpu"), name).generate


def _eager(folder: Path) -> Compute:
    """Load the encodec library's network, which encodes one clip at a time."""
    codec, model = weights.plain_codec(folder), weights.load_model(folder)

    @torch.inference_mode()
    def compute(track1: Tensor, track2: Tensor) -> Generated:
        times = [time.perf_counter()]
        latents = [codec.encode(track) for track in (track1, track2)]
        times.append(time.perf_counter())
        latent = model(*latents)
        times.append(time.perf_counter())
        audio = codec.decode(latent).clamp(-1, 1)
        times.append(time.perf_counter())
        durations = np.diff(times).tolist()
        return Generated(
            audio[:, 0], dict(zip(("encode", "cascade", "decode"), durations, strict=True))
        )

    return compute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=get_args(Name))
    parser.add_argument("weights", type=Path)
    parser.add_argument("jobs", type=int)
    arguments = parser.parse_args()
    compute = load(arguments.name, arguments.weights)
    tracks = {
        name: [torch.from_numpy(sound).repeat(arguments.jobs, 1, 1) for sound in pair(name)]
        for name in PAIRS
    }
    for line in sys.stdin:
        sounds, waveform = json.loads(line)
        began = time.perf_counter()
        generated = compute(*tracks[sounds])
        seconds = time.perf_counter() - began
        if waveform is not None:
            np.save(waveform, generated.waveforms[0].numpy())
        computed = Computed(seconds, generated.seconds, peak_bytes(os.getpid()))
        print(json.dumps(asdict(computed)), flush=True)


if __name__ == "__main__":
    main()
