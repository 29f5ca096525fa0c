"""Starter codec: placeholder weights for EnCodec's network, constructed rather than trained.

With them, MusicLab runs without the official weights. The encoder computes a lapped cosine
transform (MDCT, sine window, hop 320) and keeps the lowest 128 of its 320 bands; the decoder
computes the inverse. Together they pass frequencies below 4.8 kHz with a delay of 320 samples. The
transform is linear: the mean of two latents decodes to the mean of the two signals.

The network's ELUs are nonlinear, so each signal x is represented by a pair of channels
(+e x, -e x) with a small e, and each layer computes (ELU(+e x) - ELU(-e x)) / 2 = e x + O((e x)^2).
The LSTM's weights are zero, which leaves its skip connection; the residual branches are zero too,
which leaves each block's shortcut. Three layers with strides 2, 4 and 5 gather 40 consecutive
samples into 40 signals. The fourth (stride 8, kernel 16) covers 16 x 40 = 640 samples, which is one
MDCT window.
"""

import math

import torch
from torch import Tensor, nn

from handlers.codec import encodec_network
from handlers.codec.encodec_network import HOP, LATENT_DIM, EncodecModel

GATHERING_STRIDES = (2, 4, 5)
BLOCK = math.prod(GATHERING_STRIDES)
SMALL = 0.001
CURRENT_TAP = 6  # the last of the 7 taps of the outer convolutions; the network is causal
# Maps the channel pair of one signal to that of another: half the difference, with either sign.
PAIR_TO_PAIR = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])


@torch.no_grad()
def build() -> EncodecModel:
    """Build the network with the constructed weights, norms folded, in eval mode."""
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
    first[:2, 0, CURRENT_TAP] = SMALL * torch.tensor([1.0, -1.0])
    for weight, connections in zip(strided, [*_gathering(), mdct()], strict=True):
        _connect(weight, connections)
    for band in range(LATENT_DIM):
        last[band, 2 * band : 2 * band + 2, CURRENT_TAP] = torch.tensor([0.5, -0.5]) / SMALL


def _construct_decoder(layers: nn.Sequential) -> None:
    # A transposed convolution stores its weight as [in, out, k], and the inverse of an orthonormal
    # transform is its transpose. So each layer gets the connections of the corresponding encoder
    # layer, except that samples are scattered into the current block, which is the first half of
    # the kernel.
    first, *strided, last = _convolutions(layers)
    for band in range(LATENT_DIM):
        first[2 * band : 2 * band + 2, band, CURRENT_TAP] = SMALL * torch.tensor([1.0, -1.0])
    scattering = [
        connections.roll(connections.shape[2] // 2, dims=2) for connections in _gathering()
    ]
    for weight, connections in zip(strided, [mdct(), *reversed(scattering)], strict=True):
        _connect(weight, connections)
    last[0, :2, CURRENT_TAP] = torch.tensor([0.5, -0.5]) / SMALL


def mdct() -> Tensor:
    """Return the transform as connections [128 bands, 40 gathered signals, 16 taps].

    Unrolled in time these are 128 windowed cosines of 640 samples. With the overlap they are
    orthonormal.
    """
    sample = torch.arange(2 * HOP, dtype=torch.float64)
    band = torch.arange(LATENT_DIM, dtype=torch.float64)[:, None]
    window = torch.sin(torch.pi / (2 * HOP) * (sample + 0.5))
    cosine = torch.cos(torch.pi / HOP * (sample + 0.5 + HOP / 2) * (band + 0.5))
    basis = (math.sqrt(2 / HOP) * window * cosine).float()
    blocks = basis.reshape(LATENT_DIM, 2 * HOP // BLOCK, BLOCK)  # [band, tap, sample in block]
    return blocks[:, :, _gathered_offsets()].transpose(1, 2)


def _gathering() -> list[Tensor]:
    """Return the connections [signals x stride, signals, 2 x stride] of the gathering layers."""
    layers, signals = [], 1
    for stride in GATHERING_STRIDES:
        connections = torch.zeros(signals * stride, signals, 2 * stride)
        for signal in range(signals):
            for phase in range(stride):
                connections[signal * stride + phase, signal, stride + phase] = 1
        layers.append(connections)
        signals *= stride
    return layers


def _gathered_offsets() -> list[int]:
    """Return the offset within a block of 40 samples that each of the 40 signals holds."""
    offsets, block = [0], 1
    for stride in GATHERING_STRIDES:
        offsets = [phase * block + offset for offset in offsets for phase in range(stride)]
        block *= stride
    return offsets


def _connect(weight: Tensor, connections: Tensor) -> None:
    """Write connections between signals into a weight whose channels are pairs."""
    rows, columns, _ = connections.shape
    pairs = torch.einsum("rck,ij->ricjk", connections, PAIR_TO_PAIR)
    weight[: 2 * rows, : 2 * columns] = pairs.reshape(2 * rows, 2 * columns, -1)


def _convolutions(layers: nn.Sequential) -> list[Tensor]:
    """Return the weights of the convolutions outside the residual blocks, in signal order."""
    return [
        _weight(layer) for layer in layers if hasattr(layer, "conv") or hasattr(layer, "convtr")
    ]


def _weight(layer: nn.Module) -> Tensor:
    """Return the weight of the convolution inside EnCodec's wrappers."""
    convolutions = (nn.Conv1d, nn.ConvTranspose1d)
    return next(module.weight for module in layer.modules() if isinstance(module, convolutions))
