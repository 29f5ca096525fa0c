"""One way to compute jobs, in a process of its own that stays loaded, and idle until it is told.

    python -m benchmarks.variant NAME WEIGHTS JOBS

Reads lines from its standard input: the name of a pair of sounds, and maybe a file. For each it
computes so many jobs at once, all of that pair, writes the first one's waveform into the file, and
answers with a line of JSON.
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

# Plain PyTorch, the same with the service's malloc, and the service's pipeline by its precision.
Name = Literal["eager", "eager, same malloc", "fp32", "bf16"]

Compute = Callable[[Tensor, Tensor], Generated]
TUNED = ("GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD")


@dataclass(frozen=True)
class Computed:
    """What one computation took.

    Attributes:
        seconds: of all of it.
        stages: seconds by stage.
        peak_bytes: the most memory that the process ever had resident.
    """

    seconds: float
    stages: dict[str, float]
    peak_bytes: int


class Variant:
    """The process; cold until it has computed something.

    Args:
        name: which way.
        folder: where the weights are.
        jobs: computed at once.
    """

    def __init__(self, name: Name, folder: Path, jobs: int) -> None:
        environment = {key: text for key, text in os.environ.items() if not key.startswith(TUNED)}
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
        """Compute a pair now, and keep the first job's waveform in a file if one is named."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(
            json.dumps([sounds, waveform and str(waveform)]), file=self._process.stdin, flush=True
        )
        answer = self._process.stdout.readline()
        assert answer, f"the variant {self._name!r} ended; its error is above"
        return Computed(**json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # closes its input, which ends it


def load(name: Name, folder: Path) -> Compute:
    """The way of that name, loaded."""
    if name != "eager":
        keep_activations_in_heap()
    if name == "eager" or name == "eager, same malloc":
        return _eager(folder)
    codec, model = weights.folded_codec(folder), weights.load_model(folder)
    return Pipeline(codec, model, torch.device("cpu"), name).generate


def _eager(folder: Path) -> Compute:
    """One job by encodec's network as the library has it, clip by clip."""
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
        lasted = np.diff(times).tolist()
        return Generated(
            audio[:, 0], dict(zip(("encode", "cascade", "decode"), lasted, strict=True))
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
