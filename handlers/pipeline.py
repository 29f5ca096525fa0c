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

from handlers.codec.channels_last import ChannelsLast
from handlers.codec.codec import Codec
from handlers.model.layers import TransformerEncoder
from handlers.model.simple_transformer import SimpleTransformer
from handlers.precision import DTYPES, Precision, forbid_tf32

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
    """The codec and the model on one device.

    Args:
        codec: the reference codec; it stays as it is.
        model: is taken over.
        device: where to compute.
        precision: bf16 is that of the codec and of the model's transformers. What joins them, and
            all latents between them, are float32: it costs next to nothing, and the loudness of
            the music hangs on it.
    """

    def __init__(
        self, codec: Codec, model: SimpleTransformer, device: torch.device, precision: Precision
    ) -> None:
        self.device = device
        self.precision = precision
        self._dtype = DTYPES[precision]
        if precision == "fp32":
            forbid_tf32()
        self.encoder, self.decoder = (
            ChannelsLast(part, one_by_one=device.type == "cpu").to(device, self._dtype)
            for part in (codec.encoder, codec.decoder)
        )
        self.model = model.to(device)
        for module in self.model.modules():
            if isinstance(module, TransformerEncoder):
                module.to(self._dtype)

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
            latents = self.encoder(self._upload(clips).to(self._dtype)).float()
        with watch.stage("cascade"):
            latent = self.model(latents[:jobs], latents[jobs:])
        with watch.stage("decode"):
            audio = self.decoder(latent.to(self._dtype)).float().clamp(-1, 1)
            waveforms = audio[:, 0].cpu()
        return Generated(waveforms, watch.seconds)

    def _upload(self, clips: Tensor) -> Tensor:
        """Clips on the device; from pinned memory, which a GPU reads by itself."""
        if self.device.type == "cuda":
            clips = clips.pin_memory()
        return clips.to(self.device, non_blocking=True)
