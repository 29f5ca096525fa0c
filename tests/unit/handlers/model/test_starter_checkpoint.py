"""The starter checkpoint blends both tracks and is marked as a starter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.model.checkpoint import load_checkpoint
from handlers.model.starter_checkpoint import save_starter


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("starter") / "best_model.pt"
    save_starter(path)
    return path


def state_of(path: Path) -> dict[str, Tensor]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    state: dict[str, Tensor] = content["model_state_dict"]
    return state


def rms(v: Tensor) -> Tensor:
    return torch.sqrt((v**2).mean(dim=(1, 2), keepdim=True) + 1e-8)


def residual_path(a: Tensor, b: Tensor) -> Tensor:
    """The output of the cascade when its transformers contribute nothing."""
    common = torch.sqrt((rms(a) ** 2 + rms(b) ** 2) / 2)
    y0 = (a + b) / 2
    y0 = y0 * torch.clamp(common / (rms(y0) + 1e-8), 0.7, 1.5)
    y1 = (a + y0 + b) / 3
    return y1 * torch.clamp(common / (rms(y1) + 1e-8), 0.7, 1.5)


def test_it_is_a_cascade_marked_as_a_starter(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert checkpoint.starter
    assert checkpoint.facts["starter"]
    assert checkpoint.args.form == "cascade"
    assert checkpoint.args.encoding_dim == 128
    assert checkpoint.args.num_layers == 4


@pytest.mark.parametrize("loudness", [0.0, 0.01, 1.0, 30.0])
def test_only_the_residual_path_contributes(path: Path, loudness: float) -> None:
    generator = torch.Generator().manual_seed(6)
    track1, track2 = torch.randn(2, 2, 128, 60, generator=generator)
    track2 = loudness * track2
    with torch.inference_mode():
        latent = load_checkpoint(path).model(track1, track2)
    torch.testing.assert_close(latent, residual_path(track1, track2), rtol=1e-6, atol=1e-5)


def test_transformers_are_silenced_by_norms_and_biases_alone(path: Path) -> None:
    zero = {name for name, value in state_of(path).items() if not value.any()}
    assert {
        f"cascade_stages.{stage}.{name}"
        for stage in (0, 1)
        for name in ("post_norm.weight", "post_norm.bias", "output_proj.bias")
    } <= zero
    assert not any(name.endswith("weight_orig") for name in zero)


def test_every_build_is_identical(path: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        save_starter(tmp_path / "again.pt")
    first, again = state_of(path), state_of(tmp_path / "again.pt")
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_global_random_state_is_unchanged(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    save_starter(tmp_path / "starter.pt")
    assert torch.equal(torch.get_rng_state(), before)
