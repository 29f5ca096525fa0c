"""Starter codec: weights for EnCodec's own network that are constructed, not trained.

A machine without the official weights still makes music with these. The encoder computes a lapped
cosine transform (MDCT, sine window, hop 320) and keeps the lowest 128 of its 320 bands; the decoder
computes the inverse. Together they pass the sound below 4.8 kHz, delayed by 320 samples. The
transform is linear: the mean of two latents decodes to the mean of the two sounds.

How a linear transform survives the network's ELUs: each signal x travels as the pair of channels
(+e x, -e x) with a small e, and each layer reads (ELU(+e x) - ELU(-e x)) / 2 = e x + O((e x)^2).
The LSTM's weights are zero, which leaves its skip connection; so are the residual branches, which
leaves each block's shortcut. Three strides (2, 4, 5) gather 40 neighbouring samples into 40
signals; the fourth (stride 8, kernel 16) sees 16 x 40 = 640 samples, one MDCT window.
"""

import math

import torch
from torch import Tensor, nn

from handlers.codec import encodec_network
from handlers.codec.encodec_network import HOP, LATENT_DIM, EncodecModel

GATHERING_STRIDES = (2, 4, 5)
BLOCK = math.prod(GATHERING_STRIDES)
SMALL = 0.001
PRESENT = 6  # the last of the outer convolutions' 7 taps: the network is causal
# From the pair of one signal to the pair of another: half the difference, with either sign.
PAIR_TO_PAIR = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])


@torch.no_grad()
def build() -> EncodecModel:
    """The network with the constructed weights, norms folded, in eval mode."""
    model = encodec_network.build()
    encodec_network.fold_norms(model)
    for part in (model.encoder, model.decoder):
        for parameter in part.parameters():
            parameter.zero_()
        for block in part.modules():
            if hasattr(block, "shortcut"):
                nn.init.dirac_(_weight(block.shortcut))
    _construct_encoder(model.encoder.model)
    _construct_decoder(model.decoder.model)
    return model


def _construct_encoder(layers: nn.Sequential) -> None:
    first, *strided, last = _convolutions(layers)
    first[:2, 0, PRESENT] = SMALL * torch.tensor([1.0, -1.0])
    for weight, connections in zip(strided, [*_gathering(), mdct()], strict=True):
        _connect(weight, connections)
    for band in range(LATENT_DIM):
        last[band, 2 * band : 2 * band + 2, PRESENT] = torch.tensor([0.5, -0.5]) / SMALL


def _construct_decoder(layers: nn.Sequential) -> None:
    # A transposed convolution holds its weight as [in, out, k], and the inverse of the orthonormal
    # transform is its transpose: each layer gets the very connections of its twin in the encoder,
    # but a scattered sample is written in the present block, the first half of the kernel.
    first, *strided, last = _convolutions(layers)
    for band in range(LATENT_DIM):
        first[2 * band : 2 * band + 2, band, PRESENT] = SMALL * torch.tensor([1.0, -1.0])
    scattering = [
        connections.roll(connections.shape[2] // 2, dims=2) for connections in _gathering()
    ]
    for weight, connections in zip(strided, [mdct(), *reversed(scattering)], strict=True):
        _connect(weight, connections)
    last[0, :2, PRESENT] = torch.tensor([0.5, -0.5]) / SMALL


def mdct() -> Tensor:
    """The transform as connections [128 bands, 40 gathered signals, 16 taps].

    Unrolled in time these are 128 windowed cosines of 640 samples, orthonormal under overlap.
    """
    sample = torch.arange(2 * HOP, dtype=torch.float64)
    band = torch.arange(LATENT_DIM, dtype=torch.float64)[:, None]
    window = torch.sin(torch.pi / (2 * HOP) * (sample + 0.5))
    cosine = torch.cos(torch.pi / HOP * (sample + 0.5 + HOP / 2) * (band + 0.5))
    basis = (math.sqrt(2 / HOP) * window * cosine).float()
    blocks = basis.reshape(LATENT_DIM, 2 * HOP // BLOCK, BLOCK)  # [band, tap, sample in block]
    return blocks[:, :, _gathered_offsets()].transpose(1, 2)


def _gathering() -> list[Tensor]:
    """Connections [signals x stride, signals, 2 x stride] of the three layers that gather."""
    layers, signals = [], 1
    for stride in GATHERING_STRIDES:
        connections = torch.zeros(signals * stride, signals, 2 * stride)
        for signal in range(signals):
            for late in range(stride):
                connections[signal * stride + late, signal, stride + late] = 1
        layers.append(connections)
        signals *= stride
    return layers


def _gathered_offsets() -> list[int]:
    """Which sample of a block of 40 each of the 40 gathered signals carries."""
    offsets, block = [0], 1
    for stride in GATHERING_STRIDES:
        offsets = [late * block + offset for offset in offsets for late in range(stride)]
        block *= stride
    return offsets


def _connect(weight: Tensor, connections: Tensor) -> None:
    """Lay connections between signals into a weight whose channels are pairs."""
    rows, columns, _ = connections.shape
    pairs = torch.einsum("rck,ij->ricjk", connections, PAIR_TO_PAIR)
    weight[: 2 * rows, : 2 * columns] = pairs.reshape(2 * rows, 2 * columns, -1)


def _convolutions(layers: nn.Sequential) -> list[Tensor]:
    """Weights of the convolutions outside the residual blocks, in the order of the signal."""
    return [
        _weight(layer) for layer in layers if hasattr(layer, "conv") or hasattr(layer, "convtr")
    ]


def _weight(layer: nn.Module) -> Tensor:
    """The weight of the plain convolution inside EnCodec's wrappers."""
    convolutions = (nn.Conv1d, nn.ConvTranspose1d)
    return next(module.weight for module in layer.modules() if isinstance(module, convolutions))
