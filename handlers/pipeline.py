"""Segments to latents to the new latent to a waveform; a batch in, a batch out.

A batch of N jobs is one encoder call on all its clips, one call of the model, one decoder call.
Knows nothing of the server that runs it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handlers.codec import Codec
from handlers.simple_transformer import SimpleTransformer

SEGMENT_SAMPLES = 384_000


@dataclass
class Generated:
    """What a batch became.

    Attributes:
        waveforms: [N, 384000] float32 on the CPU, within [-1, 1].
        seconds: wall time of each stage: `encode`, `cascade`, `decode`.
    """

    waveforms: Tensor
    seconds: dict[str, float]


@dataclass
class _Stopwatch:
    """Times stages; on a GPU it waits for the work that a stage has queued."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = time.perf_counter() - started


class Pipeline:
    """The codec and the model on one device, in fp32."""

    def __init__(self, codec: Codec, model: SimpleTransformer, device: torch.device) -> None:
        self.codec = codec.to(device)
        self.model = model.to(device)
        self.device = device

    @torch.inference_mode()
    def generate(self, track1: Tensor, track2: Tensor) -> Generated:
        """New music from N pairs of segments.

        Args:
            track1: [N, 1, 384000] float32 at 24 kHz, within [-1, 1].
            track2: the same of the other tracks.
        """
        watch = _Stopwatch(self.device)
        jobs = len(track1)
        # A single-stage model does not hear track 2, so nothing is spent on it.
        clips = torch.cat([track1, track2]) if self.model.uses_track2 else track1
        with watch.stage("encode"):
            latents = self.codec.encode(clips.to(self.device))
        with watch.stage("cascade"):
            latent = self.model(latents[:jobs], latents[jobs:])
        with watch.stage("decode"):
            audio = self.codec.decode(latent).clamp(-1, 1)
        return Generated(audio[:, 0].cpu(), watch.seconds)
