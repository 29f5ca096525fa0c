"""The network that serves computes what EnCodec's own network does."""

import pytest
import torch
from torch import Tensor, nn

from handlers.codec import encodec_network
from handlers.codec.channels_last import ChannelsLast
from handlers.codec.codec import Codec

SECOND = 24_000


@pytest.fixture(scope="module")
def random_codec() -> Codec:
    """EnCodec's network with weights that leave nothing out, as trained ones do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = encodec_network.build()
    encodec_network.fold_norms(network)
    return Codec(network, "official")


def some(*shape: int) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(12))


def parts(codec: Codec) -> list[tuple[nn.Module, Tensor]]:
    """Both networks, with an input of two seconds for two items each."""
    return [(codec.encoder, some(2, 1, 2 * SECOND)), (codec.decoder, some(2, 128, 150))]


def decibels(wanted: Tensor, got: Tensor) -> float:
    """Signal-to-noise ratio."""
    noise = (got.double() - wanted.double()).square().sum()
    return float(10 * torch.log10(wanted.double().square().sum() / noise))


@pytest.mark.parametrize("one_by_one", [False, True])
@torch.inference_mode()
def test_float32_is_exact(random_codec: Codec, one_by_one: bool) -> None:
    for network, x in parts(random_codec):
        served = ChannelsLast(network, one_by_one)
        wanted, got = network(x), served(x)
        assert got.shape == wanted.shape
        assert got.is_contiguous()
        assert decibels(wanted, got) > 110


@torch.inference_mode()
def test_bfloat16_is_close(random_codec: Codec) -> None:
    for network, x in parts(random_codec):
        served = ChannelsLast(network, one_by_one=True).to(torch.bfloat16)
        assert decibels(network(x), served(x.bfloat16()).float()) > 40


@torch.inference_mode()
def test_the_starter_weights_are_served_too(starter_codec: Codec) -> None:
    sound = some(1, 1, 2 * SECOND)
    latents = ChannelsLast(starter_codec.encoder, one_by_one=True)(sound)
    music = ChannelsLast(starter_codec.decoder, one_by_one=True)(latents)
    assert decibels(starter_codec.decode(starter_codec.encode(sound)), music) > 100


@torch.inference_mode()
def test_the_reference_stays_as_it_is(random_codec: Codec) -> None:
    sound = some(1, 1, SECOND)
    before = random_codec.encode(sound)
    served = ChannelsLast(random_codec.encoder, one_by_one=True).to(torch.bfloat16)
    served(sound.bfloat16())
    assert torch.equal(random_codec.encode(sound), before)
