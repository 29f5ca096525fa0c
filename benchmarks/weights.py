"""Weights for all variants of the pipeline: the starter codec and a cascade.

Only the residual path of the starter cascade contributes to its output, so it blends both tracks.
All layers of the random cascade contribute, so its own output drowns the tracks out and is similar
for all of them. Its `output_proj` is scaled to a largest singular value of 1, as by spectral norm.
"""

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import weight_norm

from handlers.codec.codec import Codec, load_codec, save_starter
from handlers.model import starter_checkpoint
from handlers.model.checkpoint import load_checkpoint
from handlers.model.simple_transformer import ModelArgs, SimpleTransformer, build_model

Cascade = Literal["random", "starter"]

CODEC = "codec.th"
MODEL = "cascade.pt"
ARGS = ModelArgs(num_transformer_layers=2)
SEED = 0


def save(folder: Path, cascade: Cascade) -> None:
    """Write the codec and a cascade to a directory."""
    save_starter(folder / CODEC)
    if cascade == "starter":
        starter_checkpoint.save_starter(folder / MODEL)
        torch.save(load_checkpoint(folder / MODEL).model.state_dict(), folder / MODEL)
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        state = build_model(ARGS).state_dict()
    for name, weight in state.items():
        if name.endswith("output_proj.weight"):
            weight /= torch.linalg.matrix_norm(weight, 2)
    torch.save(state, folder / MODEL)


def load_model(folder: Path) -> SimpleTransformer:
    model = build_model(ARGS)
    model.load_state_dict(torch.load(folder / MODEL, weights_only=True))
    return model


def folded_codec(folder: Path) -> Codec:
    """Load the codec as the service does."""
    return load_codec(folder / CODEC, "starter")


@torch.no_grad()
def plain_codec(folder: Path) -> Codec:
    """Load the codec as the encodec library does: every call computes the weight norms.

    Weight norm divides by the length of each row's direction. Rows of zeros have no direction, so
    they get an arbitrary one, scaled to length zero.
    """
    codec = folded_codec(folder)
    for module in codec.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # the library uses the deprecated function
                weight_norm(module)
            length, direction = module.get_parameter("weight_g"), module.get_parameter("weight_v")
            direction[length.flatten() == 0] = 1
    return codec.requires_grad_(False)
