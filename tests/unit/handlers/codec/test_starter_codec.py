"""The constructed starter codec preserves audio, is linear, and is built reproducibly."""

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


def test_decoding_an_encoded_segment_restores_it_one_hop_late(starter_codec: Codec) -> None:
    sound = music(SEGMENT, seed=1)
    latent = encode(starter_codec, sound)
    assert latent.shape == (1, 128, 1200)
    decoded = decode(starter_codec, latent)
    assert decoded.shape == (SEGMENT,)
    assert si_sdr(sound[:-HOP], decoded[HOP:]) >= 35
    # SI-SDR ignores the scale, so the loudness is compared separately.
    assert decoded.std() == pytest.approx(sound.std(), rel=0.02)


def test_averaging_latents_averages_the_audio(starter_codec: Codec) -> None:
    sounds = [music(2 * RATE, seed=2), tones(2 * RATE, 300, 2500)]
    latents = [encode(starter_codec, sound) for sound in sounds]
    blended = decode(starter_codec, (latents[0] + latents[1]) / 2)
    decoded = [decode(starter_codec, latent) for latent in latents]
    assert si_sdr((decoded[0] + decoded[1]) / 2, blended) >= 40


def test_silence_stays_silent(starter_codec: Codec) -> None:
    latent = encode(starter_codec, np.zeros(RATE // 5 * 4, dtype=np.float32))
    assert np.abs(decode(starter_codec, latent)).max() < 1e-4


def test_every_build_is_identical(starter_file: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        save_starter(tmp_path / "again.th")
    first, again = (
        torch.load(path, weights_only=True) for path in (starter_file, tmp_path / "again.th")
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_loaded_weights_are_the_saved_weights(starter_file: Path, starter_codec: Codec) -> None:
    saved, loaded = torch.load(starter_file, weights_only=True), starter_codec.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert not any("weight_g" in name for name in loaded)
    assert starter_codec.kind == "starter"


def test_the_codec_is_frozen(starter_codec: Codec) -> None:
    assert not starter_codec.training
    assert not any(parameter.requires_grad for parameter in starter_codec.parameters())


def test_a_missing_or_corrupt_starter_file_is_rejected(starter_file: Path, tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.th"
    with pytest.raises(CodecError, match=r"corrupt\.th"):
        load_codec(corrupt, "starter")
    corrupt.write_bytes(starter_file.read_bytes()[:-1000])
    with pytest.raises(CodecError, match=r"corrupt\.th does not contain EnCodec weights"):
        load_codec(corrupt, "starter")
    torch.save({"encoder.model.0.conv.conv.bias": torch.zeros(3)}, corrupt)
    with pytest.raises(CodecError, match=r"corrupt\.th does not contain EnCodec weights"):
        load_codec(corrupt, "starter")
