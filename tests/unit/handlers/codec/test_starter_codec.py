"""The constructed codec carries music, linearly, and is the same each time it is built."""

from pathlib import Path

import numpy as np
import pytest
import torch

from handlers.codec.codec import Codec, load_codec, save_starter
from handlers.errors import CodecError
from tests.support.signals import RATE, SEGMENT, Samples, noise, si_sdr, tones

HOP = 320


def music(samples: int, seed: int) -> Samples:
    return noise(samples, seed) + tones(samples, 110, 440.5, 1234, 4400)


def encode(codec: Codec, sound: Samples) -> torch.Tensor:
    with torch.inference_mode():
        return codec.encode(torch.from_numpy(sound)[None, None])


def decode(codec: Codec, latent: torch.Tensor) -> Samples:
    with torch.inference_mode():
        sound: Samples = codec.decode(latent)[0, 0].numpy()
    return sound


def test_a_segment_survives_both_ways_one_hop_late(starter_codec: Codec) -> None:
    sound = music(SEGMENT, seed=1)
    latent = encode(starter_codec, sound)
    assert latent.shape == (1, 128, 1200)
    heard = decode(starter_codec, latent)
    assert heard.shape == (SEGMENT,)
    assert si_sdr(sound[:-HOP], heard[HOP:]) >= 35
    # Not only alike, but as loud.
    assert heard.std() == pytest.approx(sound.std(), rel=0.02)


def test_the_mean_of_latents_is_the_mean_of_sounds(starter_codec: Codec) -> None:
    sounds = [music(2 * RATE, seed=2), tones(2 * RATE, 300, 2500)]
    latents = [encode(starter_codec, sound) for sound in sounds]
    blended = decode(starter_codec, (latents[0] + latents[1]) / 2)
    heard = [decode(starter_codec, latent) for latent in latents]
    assert si_sdr((heard[0] + heard[1]) / 2, blended) >= 40


def test_silence_stays_silent(starter_codec: Codec) -> None:
    latent = encode(starter_codec, np.zeros(RATE // 5 * 4, dtype=np.float32))
    assert np.abs(decode(starter_codec, latent)).max() < 1e-4


def test_it_is_the_same_each_time(starter_file: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        save_starter(tmp_path / "again.th")
    first, again = (
        torch.load(path, weights_only=True) for path in (starter_file, tmp_path / "again.th")
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_what_is_loaded_is_what_was_saved(starter_file: Path, starter_codec: Codec) -> None:
    saved, loaded = torch.load(starter_file, weights_only=True), starter_codec.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert not any("weight_g" in name for name in loaded)
    assert starter_codec.kind == "starter"


def test_it_is_frozen(starter_codec: Codec) -> None:
    assert not starter_codec.training
    assert not any(parameter.requires_grad for parameter in starter_codec.parameters())


def test_a_starter_file_that_is_missing_or_spoilt_is_refused(
    starter_file: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt.th"
    with pytest.raises(CodecError, match=r"spoilt\.th"):
        load_codec(spoilt, "starter")
    spoilt.write_bytes(starter_file.read_bytes()[:-1000])
    with pytest.raises(CodecError, match=r"spoilt\.th does not hold the weights of EnCodec"):
        load_codec(spoilt, "starter")
    torch.save({"encoder.model.0.conv.conv.bias": torch.zeros(3)}, spoilt)
    with pytest.raises(CodecError, match=r"spoilt\.th does not hold the weights of EnCodec"):
        load_codec(spoilt, "starter")
