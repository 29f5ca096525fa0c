"""Checkpoints that load_checkpoint accepts, and the models and facts it loads from them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import MultiheadAttention

from handlers.model.checkpoint import load_checkpoint
from handlers.model.simple_transformer import SingleStageTransformer
from tests.support.model_weights import (
    Weights,
    cascade_shapes,
    random_weights,
    save,
    single_stage_shapes,
)

DIM, NHEAD = 16, 4
ARGS: dict[str, Any] = {"encoding_dim": DIM, "nhead": NHEAD, "num_layers": 1}
CASCADE_ARGS = ARGS | {"num_transformer_layers": 2}


@pytest.fixture
def weights() -> Weights:
    return random_weights(single_stage_shapes(DIM, 1))


@pytest.fixture
def track() -> Tensor:
    return torch.randn(2, DIM, 20, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best_model.pt"


@torch.inference_mode()
def generate(path: Path, track: Tensor) -> Tensor:
    latent: Tensor = load_checkpoint(path).model(track, track)
    return latent


def test_the_ddp_prefix_is_removed(path: Path, weights: Weights, track: Tensor) -> None:
    expected = generate(save(path, weights, ARGS), track)
    prefixed = {f"module.{name}": value for name, value in weights.items()}
    assert torch.equal(generate(save(path, prefixed, ARGS), track), expected)


def test_missing_args_are_replaced_by_the_defaults(path: Path) -> None:
    checkpoint = load_checkpoint(save(path, random_weights(single_stage_shapes(128, 4)), None))
    assert vars(checkpoint.args) == {
        "encoding_dim": 128,
        "nhead": 8,
        "num_layers": 4,
        "num_transformer_layers": 1,
        "use_creative_agent": False,
        "use_compositional_agent": False,
    }
    assert isinstance(checkpoint.model, SingleStageTransformer)
    assert len(checkpoint.model.transformer.layers) == 4


def test_a_missing_argument_is_replaced_by_its_default(path: Path) -> None:
    args = {"encoding_dim": 128, "num_layers": 1, "num_transformer_layers": 2}
    checkpoint = load_checkpoint(save(path, random_weights(cascade_shapes(128, 1)), args))
    assert checkpoint.args.nhead == 8
    attention = checkpoint.model.get_submodule("cascade_stages.0.transformer.layers.0.self_attn")
    assert isinstance(attention, MultiheadAttention)
    assert attention.num_heads == 8


def test_training_state_in_the_file_is_ignored(path: Path, weights: Weights, track: Tensor) -> None:
    expected = generate(save(path, weights, ARGS), track)
    training_weights = {
        "creative_agent.discriminator.encoder.0.weight": torch.full((3, 2), float("nan")),
        "module.creative_agent.discriminator.style_matcher.bias": torch.zeros(1),
        "creative_agent.input_extractor.rhythm_norm.num_batches_tracked": torch.tensor(7),
    }
    save(
        path,
        weights | training_weights,
        ARGS | {"lr": 1e-4, "train_dir": "pairs", "milestones": [1, 2]},
        optimizer_state_dict={"state": {}, "param_groups": [{"lr": 1e-4}]},
        discriminator_state_dict={"weight": torch.zeros(2)},
    )
    assert torch.equal(generate(path, track), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_to_fp32(
    path: Path, weights: Weights, track: Tensor, dtype: torch.dtype
) -> None:
    stored = {name: value.to(dtype) for name, value in weights.items()}
    expected = generate(save(path, {name: v.float() for name, v in stored.items()}, ARGS), track)
    checkpoint = load_checkpoint(save(path, stored, ARGS))
    assert {value.dtype for value in checkpoint.model.state_dict().values()} == {torch.float32}
    assert torch.equal(generate(path, track), expected)


def test_the_spectral_norm_uses_the_stored_vectors(path: Path) -> None:
    weights = random_weights(cascade_shapes(DIM, 1))
    generator = torch.Generator().manual_seed(4)
    for stage in (0, 1):  # other vectors than a new power iteration would find
        for part in ("weight_u", "weight_v"):
            name = f"cascade_stages.{stage}.output_proj.{part}"
            weights[name] = torch.randn(weights[name].shape, generator=generator)
    model = load_checkpoint(save(path, weights, CASCADE_ARGS)).model
    for stage in (0, 1):
        prefix = f"cascade_stages.{stage}.output_proj.weight"
        orig, u, v = (weights[f"{prefix}_{part}"] for part in ("orig", "u", "v"))
        torch.testing.assert_close(model.state_dict()[prefix], orig / (u @ (orig @ v)))


def test_the_positional_table_is_read_from_the_file(path: Path) -> None:
    weights = random_weights(cascade_shapes(DIM, 1))
    weights["cascade_stages.0.pos_encoding.pe"] *= 0.5
    model = load_checkpoint(save(path, weights, CASCADE_ARGS)).model
    name = "cascade_stages.0.pos_encoding.pe"
    assert torch.equal(model.state_dict()[name], weights[name])


def test_facts_are_read_from_the_file(path: Path, weights: Weights) -> None:
    args = ARGS | {"lr": 1e-4, "train_dir": "pairs", "betas": (0.9, 0.99)}
    odd = {"clip": float("inf"), "precision": torch.float16, "steps": {1: torch.arange(2)}}
    losses = {"train_loss": 0.5, "val_loss": float("nan"), "best_val_loss": torch.tensor(0.25)}
    facts = load_checkpoint(save(path, weights, args | odd, epoch=12, **losses)).facts
    assert facts == {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "form": "single stage",
        "starter": False,
        "epoch": 12,
        "train_loss": 0.5,
        "val_loss": "nan",
        "best_val_loss": 0.25,
        "args": args
        | {
            "betas": [0.9, 0.99],
            "clip": "inf",
            "precision": "torch.float16",
            "steps": {"1": [0, 1]},
        },
    }
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_facts_missing_from_the_file_are_none(path: Path, weights: Weights) -> None:
    facts = load_checkpoint(save(path, weights, ARGS)).facts
    assert [facts[name] for name in ("epoch", "train_loss", "val_loss", "best_val_loss")] == [
        None
    ] * 4


@pytest.mark.parametrize(
    ("mark", "starter"), [({"musiclab_starter": True}, True), ({"musiclab_starter": 0}, False)]
)
def test_the_starter_mark_is_read(
    path: Path, weights: Weights, mark: dict[str, Any], starter: bool
) -> None:
    checkpoint = load_checkpoint(save(path, weights, ARGS, **mark))
    assert checkpoint.starter is starter
    assert checkpoint.facts["starter"] is starter
