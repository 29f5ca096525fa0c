"""The weights that every variant of the pipeline computes with: the starter codec, and a cascade.

Of the starter cascade the residual path alone speaks, so that it blends both tracks. The random one
speaks throughout, and drowns the tracks in a sound of its own, much the same for all of them. Its
`output_proj` is scaled so that the largest singular value is 1, as spectral norm has it.
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
    """Write codec and cascade into a folder."""
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
    """The codec as the service loads it."""
    return load_codec(folder / CODEC, "starter")


@torch.no_grad()
def plain_codec(folder: Path) -> Codec:
    """The codec as the encodec library has it: every convolution computes its norm in every call.

    Weights of which a row is zero have no direction, which the norm would divide by; they get one,
    of length zero.
    """
    codec = folded_codec(folder)
    for module in codec.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the library's own choice
                weight_norm(module)
            length, direction = module.get_parameter("weight_g"), module.get_parameter("weight_v")
            direction[length.flatten() == 0] = 1
    return codec.requires_grad_(False)
