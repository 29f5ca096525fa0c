"""Every form of the model, compared with latents of the original model and with plain formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handlers.model.checkpoint import load_checkpoint
from tests.support import model_weights
from tests.support.reference_model import Reference

GOLDEN = Path(__file__).parents[3] / "golden"
GOLDEN_NAMES = ("single", "cascade", "cascade-masking", "cascade-clamp", "cascade-loud")
FORM_NAMES = ("single", "cascade", "cascade-masking")


def golden_content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    return content


def golden_latents(name: str) -> tuple[Tensor, Tensor, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as latents:
        track1, track2, expected = (
            torch.from_numpy(latents[key]) for key in ("track1", "track2", "expected")
        )
    return track1, track2, expected


def generate(path: Path, track1: Tensor, track2: Tensor) -> Tensor:
    with torch.inference_mode():
        latent: Tensor = load_checkpoint(path).model(track1, track2)
    return latent


def reference_of(name: str, track1: Tensor, track2: Tensor) -> Tensor:
    content = golden_content(name)
    reference = Reference(content["model_state_dict"], content["args"]["nhead"])
    if name == "single":
        return reference.single_stage(track1)
    if name == "cascade-masking":
        track1, track2 = reference.masked(track1, track2)
    return reference.cascade(track1, track2)


def random_latents(dim: int, frames: int, items: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    track1, track2 = torch.randn(2, items, dim, frames, generator=generator)
    return track1, 3 * track2


def assert_close(latent: Tensor, expected: Tensor, rtol: float = 0) -> None:
    torch.testing.assert_close(latent, expected.to(latent.dtype), rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_latents_match_the_original(name: str) -> None:
    track1, track2, expected = golden_latents(name)
    assert_close(generate(GOLDEN / f"{name}.pt", track1, track2), expected)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_the_reference_formulas_match_the_original(name: str) -> None:
    track1, track2, expected = golden_latents(name)
    # The original computed in fp32, which limits the accuracy of some loud latents.
    assert_close(reference_of(name, track1, track2), expected, rtol=1e-5)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_items_of_a_batch_do_not_influence_each_other(name: str) -> None:
    track1, track2, _ = golden_latents(name)
    # Leakage from a loud neighbor, or a mean over the batch, would be measurable.
    loud1, loud2 = torch.cat([track1, 100 * track1[:1]]), torch.cat([track2, 100 * track2[:1]])
    together = generate(GOLDEN / f"{name}.pt", loud1, loud2)
    for item in range(len(track1)):
        alone = generate(GOLDEN / f"{name}.pt", track1[[item]], track2[[item]])
        assert_close(together[[item]], alone)


@pytest.mark.parametrize("frames", [1, 1200])
@pytest.mark.parametrize("name", FORM_NAMES)
def test_any_number_of_frames_works(name: str, frames: int) -> None:
    tracks = random_latents(golden_content(name)["args"]["encoding_dim"], frames)
    assert_close(generate(GOLDEN / f"{name}.pt", *tracks), reference_of(name, *tracks))


@pytest.mark.parametrize("loudness", [0, 1e-4])
@pytest.mark.parametrize("name", FORM_NAMES)
def test_silence_causes_no_division_by_zero(name: str, loudness: float) -> None:
    track1, track2, _ = golden_latents(name)
    tracks = loudness * track1, loudness * track2
    assert_close(generate(GOLDEN / f"{name}.pt", *tracks), reference_of(name, *tracks))


def test_the_cascade_uses_its_whole_positional_table() -> None:
    tracks = random_latents(32, model_weights.MAX_FRAMES)
    assert_close(generate(GOLDEN / "cascade.pt", *tracks), reference_of("cascade", *tracks))


def test_a_single_stage_ignores_track_2() -> None:
    track1, track2, expected = golden_latents("single")
    model = load_checkpoint(GOLDEN / "single.pt").model
    with torch.inference_mode():
        for other in (track2, -7 * track2, track2[:0], None):
            assert_close(model(track1, other), expected)


def test_a_cascade_uses_both_tracks() -> None:
    track1, track2, expected = golden_latents("cascade")
    for tracks in ((track1, track1), (track2, track2), (track2, track1)):
        assert (generate(GOLDEN / "cascade.pt", *tracks) - expected).abs().max() > 0.01


def test_a_single_stage_ignores_the_agent_flags(tmp_path: Path) -> None:
    content = golden_content("single")
    content["args"] |= {"use_creative_agent": True, "use_compositional_agent": True}
    torch.save(content, tmp_path / "flags.pt")
    track1, track2, expected = golden_latents("single")
    assert load_checkpoint(tmp_path / "flags.pt").args.form == "single stage"
    assert_close(generate(tmp_path / "flags.pt", track1, track2), expected)


def test_a_cascade_always_has_two_stages(tmp_path: Path) -> None:
    content = golden_content("cascade")
    content["args"]["num_transformer_layers"] = 7
    torch.save(content, tmp_path / "seven.pt")
    track1, track2, expected = golden_latents("cascade")
    assert_close(generate(tmp_path / "seven.pt", track1, track2), expected)


def test_training_noise_and_dropout_are_not_applied(tmp_path: Path) -> None:
    content = golden_content("cascade")
    content["args"] |= {"anti_cheating": 0.5, "dropout": 0.9}
    torch.save(content, tmp_path / "noisy.pt")
    track1, track2, expected = golden_latents("cascade")
    assert_close(generate(tmp_path / "noisy.pt", track1, track2), expected)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("single", "single stage"),
        ("cascade", "cascade"),
        ("cascade-masking", "cascade with masking agent"),
    ],
)
def test_each_form_is_named(name: str, form: str) -> None:
    checkpoint = load_checkpoint(GOLDEN / f"{name}.pt")
    assert checkpoint.args.form == form
    assert checkpoint.model.uses_track2 == (name != "single")
    assert not checkpoint.model.training
