"""EnCodec's 24 kHz network from the `encodec` library, imported without torchaudio.

The library imports torchaudio unconditionally, but needs it only to read, write and resample files,
which MusicLab does not use. A CPU-only installation has no torchaudio, or one that fails to load,
so an empty module takes its place during the import.
"""

import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils import remove_weight_norm

SAMPLE_RATE = 24_000
HOP = 320
LATENT_DIM = 128
BANDWIDTH_KBPS = 6.0  # the bandwidth used in training; it has no effect without the quantizer


@contextmanager
def _stand_in_torchaudio() -> Iterator[None]:
    if "torchaudio" in sys.modules:
        yield
        return
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]


with _stand_in_torchaudio():
    from encodec import EncodecModel
    from encodec.model import ROOT_URL

__all__ = [
    "BANDWIDTH_KBPS",
    "HOP",
    "LATENT_DIM",
    "ROOT_URL",
    "SAMPLE_RATE",
    "EncodecModel",
    "build",
    "fold_norms",
]


def build() -> EncodecModel:
    """Build the untrained network in eval mode.

    `encoder` maps [B, 1, S] to [B, 128, S / 320], `decoder` the reverse.

    Source: A. Defossez et al., High Fidelity Neural Audio Compression, 2022.
    """
    with warnings.catch_warnings():
        # The library uses torch's deprecated weight_norm; fold_norms removes it before inference.
        warnings.simplefilter("ignore", FutureWarning)
        model = EncodecModel.encodec_model_24khz(pretrained=False)
    model.set_target_bandwidth(BANDWIDTH_KBPS)
    return model


def fold_norms(model: nn.Module) -> None:
    """Replace every weight norm by the resulting weight: same output, less work per call."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)
