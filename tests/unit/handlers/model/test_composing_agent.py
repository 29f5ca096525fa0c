"""The cascade with the composing agent, compared with plain formulas, and its output limits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from handlers.model.checkpoint import load_checkpoint
from handlers.model.simple_transformer import CascadeTransformer
from tests.support.model_weights import (
    Weights,
    cascade_shapes,
    composing_agent_shapes,
    random_weights,
    save,
)
from tests.support.reference_model import Reference

DIM, NHEAD = 16, 4
ARGS = {
    "encoding_dim": DIM,
    "nhead": NHEAD,
    "num_layers": 1,
    "num_transformer_layers": 2,
    "use_compositional_agent": True,
}
LAST = "creative_agent.composer.output_projection.3"


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(cascade_shapes(DIM, 1) | composing_agent_shapes(DIM))


@pytest.fixture(scope="module")
def checkpoint(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("composing") / "composing.pt", weights, ARGS)


@pytest.fixture
def model(checkpoint: Path) -> CascadeTransformer:
    return load_cascade(checkpoint)


def load_cascade(path: Path) -> CascadeTransformer:
    model = load_checkpoint(path).model
    assert isinstance(model, CascadeTransformer)
    return model


def latents(frames: int, items: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    track1, track2 = torch.randn(2, items, DIM, frames, generator=generator)
    return track1, 2 * track2


def agent_output(
    model: CascadeTransformer, track1: Tensor, track2: Tensor
) -> tuple[Tensor, Tensor]:
    assert model.creative_agent is not None
    with torch.inference_mode():
        a, b = model.creative_agent(track1, track2)
    return a, b


def assert_close(latent: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(latent, expected.to(latent.dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 60, 1200])
def test_the_agent_matches_the_reference_formulas(
    model: CascadeTransformer, weights: Weights, frames: int
) -> None:
    track1, track2 = latents(frames, items=1)
    a, b = agent_output(model, track1, track2)
    assert_close(a, Reference(weights, NHEAD).composed(track1, track2))
    assert torch.equal(b, track2)


def test_the_cascade_takes_the_composition_as_input(
    model: CascadeTransformer, weights: Weights
) -> None:
    track1, track2 = latents(60)
    reference = Reference(weights, NHEAD)
    expected = reference.cascade(reference.composed(track1, track2), track2)
    with torch.inference_mode():
        assert_close(model(track1, track2), expected)


def test_items_of_a_batch_do_not_influence_each_other(model: CascadeTransformer) -> None:
    track1, track2 = latents(60, items=3)
    track1[2] *= 100  # leakage from a loud neighbor would be measurable
    with torch.inference_mode():
        together = model(track1, track2)
        for item in range(2):
            assert_close(together[[item]], model(track1[[item]], track2[[item]]))


def test_the_composing_agent_takes_precedence_over_the_masking_agent(
    model: CascadeTransformer, weights: Weights, tmp_path: Path
) -> None:
    path = save(tmp_path / "both.pt", weights, ARGS | {"use_creative_agent": True})
    both = load_checkpoint(path)
    assert both.args.form == "cascade with composing agent"
    tracks = latents(60)
    with torch.inference_mode():
        assert torch.equal(both.model(*tracks), model(*tracks))


def test_huge_compositions_are_clamped_to_50(weights: Weights, tmp_path: Path) -> None:
    bias = weights[f"{LAST}.bias"].clone()
    bias[:4] = torch.tensor([1e6, -1e6, 70.0, 40.0])
    changed = weights | {f"{LAST}.bias": bias}
    track1, track2 = latents(60)
    unlimited = Reference(changed, NHEAD).composed(track1, track2)
    assert unlimited[:, 3:].abs().max() < 50  # these must not be changed
    a, _ = agent_output(load_cascade(save(tmp_path / "huge.pt", changed, ARGS)), track1, track2)
    assert (a[:, [0, 2]] == 50).all()
    assert (a[:, 1] == -50).all()
    assert_close(a[:, 3:], unlimited[:, 3:])


def test_infinite_compositions_are_clamped_to_50(weights: Weights, tmp_path: Path) -> None:
    huge = weights[f"{LAST}.weight"].clone()
    huge[0] = 3e38
    bias = weights[f"{LAST}.bias"].clone()
    bias[0] = 3e38
    changed = weights | {f"{LAST}.weight": huge, f"{LAST}.bias": bias}
    a, _ = agent_output(load_cascade(save(tmp_path / "infinite.pt", changed, ARGS)), *latents(60))
    assert a.isfinite().all()
    assert set(a[:, 0].flatten().tolist()) <= {-50.0, 0.0, 50.0}


def test_nan_is_replaced_by_zeros_in_its_item_alone(
    model: CascadeTransformer, weights: Weights
) -> None:
    track1, track2 = latents(60)
    track1[0, 0, 0] = float("nan")
    a, b = agent_output(model, track1, track2)
    assert (a[0] == 0).all()
    assert_close(a[1:], Reference(weights, NHEAD).composed(track1[1:], track2[1:]))
    expected = Reference(weights, NHEAD).cascade(a, b)
    with torch.inference_mode():
        assert_close(model(track1, track2), expected)
