"""Checkpoints with random weights; keys and shapes are defined here, independently of the model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, Tensor]

MAX_FRAMES = 2000


def single_stage_shapes(dim: int, layers: int) -> Shapes:
    return _stage("", dim, dim, layers)


def cascade_shapes(dim: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for stage, d_model in enumerate((2 * dim, 3 * dim)):
        prefix = f"cascade_stages.{stage}."
        shapes[f"{prefix}pos_encoding.pe"] = (1, MAX_FRAMES, d_model)
        shapes |= _stage(prefix, d_model, dim, layers)
    return shapes


def composing_agent_shapes(dim: int) -> Shapes:
    shapes: Shapes = {}
    for extractor in ("input_extractor", "target_extractor"):
        for branch, kernels in (("rhythm", (3, 5)), ("harmony", (7, 9)), ("timbre", (15, 21))):
            prefix = f"creative_agent.{extractor}.{branch}"
            shapes |= _layer(f"{prefix}_conv1", 128, dim, kernels[0])
            shapes |= _layer(f"{prefix}_conv2", 64, 128, kernels[1])
            shapes |= _layer(f"{prefix}_norm", 64)
            shapes[f"{prefix}_norm.running_mean"] = (64,)
            shapes[f"{prefix}_norm.running_var"] = (64,)
            shapes |= _layer(f"{prefix}_skip", 64, dim, 1)
    shapes |= _layer("creative_agent.component_selector.0", 256, 384, 1)
    shapes |= _layer("creative_agent.component_selector.2", 6, 256, 1)
    shapes |= _layer("creative_agent.composer.component_projection", 512, 384)
    shapes["creative_agent.composer.pos_encoder.pe"] = (1, MAX_FRAMES, 512)
    shapes |= _encoder("creative_agent.composer.composer", 512, 4)
    shapes |= _layer("creative_agent.composer.output_projection.0", 256, 512)
    shapes |= _layer("creative_agent.composer.output_projection.3", dim, 256)
    return shapes


def random_weights(shapes: Shapes, seed: int = 0) -> Weights:
    """Weights in fp32 that keep the RMS of signals near 1; norm layers are not identities."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if name.endswith(".pe"):
            weights[name] = sinusoids(shape[2])
        elif name.endswith("running_var"):
            weights[name] = 0.5 + value.abs()
        elif len(shape) > 1:
            weights[name] = value * shape[0] ** 0.5 / value.numel() ** 0.5
        else:
            weights[name] = 0.2 * value + (1 if name.endswith("weight") else 0)
    for name in [name for name in weights if name.endswith("weight_orig")]:
        left, _, right = torch.linalg.svd(weights[name], full_matrices=False)
        weights[name.replace("_orig", "_u")] = left[:, 0].clone()
        weights[name.replace("_orig", "_v")] = right[0].clone()
    return weights


def sinusoids(d_model: int) -> Tensor:
    """[1, 2000, d_model]: sin(t / 10000^(2i / d)) in channel 2i, the cosine in channel 2i + 1."""
    frame = torch.arange(MAX_FRAMES, dtype=torch.float64)[:, None]
    channel = torch.arange(d_model)
    angle = frame / 10000.0 ** ((channel - channel % 2) / d_model).double()
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


def save(path: Path, weights: Weights, args: dict[str, Any] | None, **more: Any) -> Path:
    """Write a checkpoint file; `args` is omitted if it is None."""
    content: dict[str, Any] = {"model_state_dict": weights, **more}
    torch.save(content if args is None else content | {"args": args}, path)
    return path


def _stage(prefix: str, d_model: int, out_dim: int, layers: int) -> Shapes:
    return {
        **_layer(f"{prefix}input_norm", d_model),
        **_encoder(f"{prefix}transformer", d_model, layers),
        **_layer(f"{prefix}post_norm", d_model),
        f"{prefix}output_proj.bias": (out_dim,),
        f"{prefix}output_proj.weight_orig": (out_dim, d_model),
    }


def _encoder(prefix: str, d_model: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(layers):
        block = f"{prefix}.layers.{layer}."
        shapes[f"{block}self_attn.in_proj_weight"] = (3 * d_model, d_model)
        shapes[f"{block}self_attn.in_proj_bias"] = (3 * d_model,)
        shapes |= _layer(f"{block}self_attn.out_proj", d_model, d_model)
        shapes |= _layer(f"{block}linear1", 4 * d_model, d_model)
        shapes |= _layer(f"{block}linear2", d_model, 4 * d_model)
        shapes |= _layer(f"{block}norm1", d_model)
        shapes |= _layer(f"{block}norm2", d_model)
    return shapes


def _layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
