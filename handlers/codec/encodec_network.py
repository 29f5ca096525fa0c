"""EnCodec's 24 kHz network from the `encodec` library, without the torchaudio it would import.

The library imports torchaudio when it is imported, but needs it only to read, write and resample
files, which is never asked of it here. A CPU-only install has no torchaudio, or one that does not
load, so the import is given an empty stand-in for as long as it lasts.
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
BANDWIDTH_KBPS = 6.0  # the bandwidth of training; without the quantizer it changes nothing


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
    """The untrained network in eval mode; `encoder` [B, 1, S] -> [B, 128, S / 320], `decoder` back.

    Source: A. Defossez et al., High Fidelity Neural Audio Compression, 2022.
    """
    with warnings.catch_warnings():
        # The library uses torch's old weight_norm; it is folded away before anything is served.
        warnings.simplefilter("ignore", FutureWarning)
        model = EncodecModel.encodec_model_24khz(pretrained=False)
    model.set_target_bandwidth(BANDWIDTH_KBPS)
    return model


def fold_norms(model: nn.Module) -> None:
    """Replace every weight-normalised weight by its value: the same numbers, less work per call."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)
