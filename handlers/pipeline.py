"""The inference pipeline: encodes the segments, runs the model and decodes the result.

A batch of N jobs takes one encoder call for all its segments, one model call and one decoder call.
This module does not depend on TorchServe.
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
    """The output of a batch.

    Attributes:
        waveforms: [N, 384000] float32 on the CPU, within [-1, 1].
        seconds: wall time of each stage: `encode`, `cascade`, `decode`.
    """

    waveforms: Tensor
    seconds: dict[str, float]


@dataclass
class _Stopwatch:
    """Measures the wall time of each stage; on a GPU, waits for the kernels the stage launched."""

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
        codec: the codec as loaded; it is not modified.
        model: moved to the device and converted in place.
        device: the device to compute on.
        precision: bf16 applies to the codec and to the model's transformers. The other layers and
            the latents passed between them stay in float32: this costs almost nothing, and the
            loudness of the output depends on it.
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
        """Generate new music from N pairs of segments.

        Args:
            track1: [N, 1, 384000] float32 at 24 kHz, within [-1, 1].
            track2: same shape and format as `track1`.
        """
        watch = _Stopwatch(self.device)
        jobs = len(track1)
        # A single-stage model does not use track 2, so it is not encoded.
        segments = torch.cat([track1, track2]) if self.model.uses_track2 else track1
        with watch.stage("encode"):
            latents = self.encoder(self._upload(segments).to(self._dtype)).float()
        with watch.stage("cascade"):
            latent = self.model(latents[:jobs], latents[jobs:])
        with watch.stage("decode"):
            audio = self.decoder(latent.to(self._dtype)).float().clamp(-1, 1)
            waveforms = audio[:, 0].cpu()
        return Generated(waveforms, watch.seconds)

    def _upload(self, segments: Tensor) -> Tensor:
        """Copy segments to the device; to a GPU asynchronously, from pinned memory."""
        if self.device.type == "cuda":
            segments = segments.pin_memory()
        return segments.to(self.device, non_blocking=True)
