"""The channels-last network used in production matches EnCodec's own network."""

import pytest
import torch
from torch import Tensor, nn

from handlers.codec import encodec_network
from handlers.codec.channels_last import ChannelsLast
from handlers.codec.codec import Codec

SECOND = 24_000


@pytest.fixture(scope="module")
def random_codec() -> Codec:
    """EnCodec's network with random weights, so that every layer contributes, as when trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = encodec_network.build()
    encodec_network.fold_norms(network)
    return Codec(network, "official")


def random_input(*shape: int) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(12))


def parts(codec: Codec) -> list[tuple[nn.Module, Tensor]]:
    """Encoder and decoder, each with an input for two items of two seconds."""
    return [
        (codec.encoder, random_input(2, 1, 2 * SECOND)),
        (codec.decoder, random_input(2, 128, 150)),
    ]


def snr_db(expected: Tensor, actual: Tensor) -> float:
    """The signal-to-noise ratio in dB."""
    noise = (actual.double() - expected.double()).square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / noise))


@pytest.mark.parametrize("one_by_one", [False, True])
@torch.inference_mode()
def test_float32_matches_the_reference(random_codec: Codec, one_by_one: bool) -> None:
    for network, x in parts(random_codec):
        channels_last = ChannelsLast(network, one_by_one)
        expected, actual = network(x), channels_last(x)
        assert actual.shape == expected.shape
        assert actual.is_contiguous()
        assert snr_db(expected, actual) > 110


@torch.inference_mode()
def test_bfloat16_is_close_to_the_reference(random_codec: Codec) -> None:
    for network, x in parts(random_codec):
        channels_last = ChannelsLast(network, one_by_one=True).to(torch.bfloat16)
        assert snr_db(network(x), channels_last(x.bfloat16()).float()) > 40


@torch.inference_mode()
def test_starter_weights_match_the_reference(starter_codec: Codec) -> None:
    sound = random_input(1, 1, 2 * SECOND)
    latents = ChannelsLast(starter_codec.encoder, one_by_one=True)(sound)
    music = ChannelsLast(starter_codec.decoder, one_by_one=True)(latents)
    assert snr_db(starter_codec.decode(starter_codec.encode(sound)), music) > 100


@torch.inference_mode()
def test_the_source_network_is_not_modified(random_codec: Codec) -> None:
    sound = random_input(1, 1, SECOND)
    before = random_codec.encode(sound)
    channels_last = ChannelsLast(random_codec.encoder, one_by_one=True).to(torch.bfloat16)
    channels_last(sound.bfloat16())
    assert torch.equal(random_codec.encode(sound), before)
