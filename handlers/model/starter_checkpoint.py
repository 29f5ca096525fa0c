"""Starter checkpoint: a placeholder for a trained cascade that blends both tracks.

The weights of `post_norm` and the bias of `output_proj` are zero, so only the residual path
contributes to the output. The other weights are random; inference costs as much as with a trained
model.
"""

from pathlib import Path

import torch
from torch import Tensor

from handlers.model.checkpoint import STARTER_MARK
from handlers.model.simple_transformer import ModelArgs, build_model

NAME = "best_model.pt"
SEED = 0


def save_starter(path: Path) -> None:
    """Write the starter checkpoint, in the format of a trained one, to `path`."""
    args = ModelArgs(num_transformer_layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        weights = build_model(args).state_dict()
        for name in list(weights):
            if "post_norm." in name or name.endswith("output_proj.bias"):
                weights[name].zero_()
            elif name.endswith("output_proj.weight"):
                weights |= _spectral_parts(name, weights.pop(name))
    torch.save(
        {"model_state_dict": weights, "args": vars(args), "epoch": 0, STARTER_MARK: True}, path
    )


def _spectral_parts(name: str, weight: Tensor) -> dict[str, Tensor]:
    """Return the weight as torch's spectral_norm stores it: with its first singular vectors."""
    u, _, v = torch.linalg.svd(weight, full_matrices=False)
    return {f"{name}_orig": weight, f"{name}_u": u[:, 0].clone(), f"{name}_v": v[0].clone()}
