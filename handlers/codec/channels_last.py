"""EnCodec's encoder and decoder in channels-last layout.

The output is that of the library's network with its norms folded. Activations are laid out as
[B, T, C], channels last, so that every convolution is a matrix product over contiguous memory:
- a convolution over time runs as a 2-D convolution over [B, C, 1, T] in channels-last format;
- the kernel of the preceding ELU leaves room for padding, which therefore copies no signal;
- a transposed convolution with kernel size 2 * s and stride s runs as a convolution with kernel
  size 2 and s times as many output channels; its output is already laid out as the upsampled
  signal.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from handlers.codec.elu import Padding, elu, pad


class Convolution(nn.Module):
    """A causal convolution of ELU(x): [B, T, C] -> [B, T / stride, D].

    Args:
        wrapped: the library's layer.
        activates: whether an ELU precedes the convolution.
    """

    padding: Padding = "reflect"

    def __init__(self, wrapped: nn.Module, activates: bool) -> None:
        super().__init__()
        conv = next(module for module in wrapped.modules() if isinstance(module, nn.Conv1d))
        self.activates = activates
        self.stride = conv.stride[0]
        self.left = conv.kernel_size[0] - self.stride
        self._set_weights(conv.weight, conv.bias)

    def _set_weights(self, weight: Tensor, bias: Tensor | None) -> None:
        assert bias is not None  # noqa: S101 - EnCodec's convolutions have a bias
        image = weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(image, requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Convolve ELU(x + residual), or x itself if no ELU precedes the convolution."""
        if self.activates:
            x = elu(x, residual, self.left, self.padding)
        else:
            x = pad(x, self.left, self.padding)
        image = x.transpose(1, 2)[:, :, None]
        y = functional.conv2d(image, self.weight, self.bias, stride=(1, self.stride))
        return y[:, :, 0].transpose(1, 2).contiguous()


class TransposedConvolution(Convolution):
    """A transposed convolution of ELU(x): [B, T, C] -> [B, T * stride, D].

    y[t s + j] = W[:, :, j] x[t] + W[:, :, s + j] x[t - 1], where x is zero before the first step.
    """

    padding: Padding = "zeros"

    def __init__(self, wrapped: nn.Module) -> None:
        nn.Module.__init__(self)
        conv = next(each for each in wrapped.modules() if isinstance(each, nn.ConvTranspose1d))
        assert conv.bias is not None  # noqa: S101 - EnCodec's convolutions have a bias
        self.activates, self.stride, self.left = True, 1, 1
        self.factor = factor = conv.stride[0]
        previous, current = conv.weight[:, :, factor:], conv.weight[:, :, :factor]
        taps = torch.stack([previous, current], dim=-1)  # [C, D, s, 2]
        self._set_weights(taps.permute(2, 1, 0, 3).flatten(0, 1), conv.bias.repeat(factor))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = super().forward(x, residual)
        return y.view(len(y), y.shape[1] * self.factor, -1)


class ResidualBlock(nn.Module):
    """Two successive convolutions and a parallel shortcut; returns both summands of the output.

    The next layer adds them in the same kernel that applies its ELU.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        branch = block.get_submodule("block").children()
        first, second = (layer for layer in branch if hasattr(layer, "conv"))
        self.first = Convolution(first, activates=True)
        self.second = Convolution(second, activates=True)
        self.shortcut = Convolution(block.get_submodule("shortcut"), activates=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.shortcut(x), self.second(self.first(x))


class ChannelsLast(nn.Module):
    """The encoder, [B, 1, S] -> [B, 128, S / 320], or the decoder, which is the reverse.

    S must be a multiple of 320.

    Args:
        network: the library's encoder or decoder, with its norms folded.
        one_by_one: whether the convolutions process the batch item by item, so that the
            activations fit into a CPU's cache. The LSTM, whose cost hardly depends on the batch
            size, always processes the whole batch at once.
    """

    def __init__(self, network: nn.Module, one_by_one: bool) -> None:
        super().__init__()
        self.one_by_one = one_by_one
        self.before_lstm, self.after_lstm = nn.ModuleList(), nn.ModuleList()
        section, activates = self.before_lstm, False
        for layer in network.get_submodule("model").children():
            if isinstance(layer, nn.ELU):
                activates = True
                continue
            if hasattr(layer, "lstm"):
                self.lstm = copy.deepcopy(layer.get_submodule("lstm"))
                section = self.after_lstm
            elif hasattr(layer, "convtr"):
                section.append(TransposedConvolution(layer))
            elif hasattr(layer, "block"):
                section.append(ResidualBlock(layer))
            else:
                section.append(Convolution(layer, activates))
            activates = False
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self._convolve(self.before_lstm, x.transpose(1, 2).contiguous()).transpose(0, 1)
        h = (h + self.lstm(h)[0]).transpose(0, 1).contiguous()
        return self._convolve(self.after_lstm, h).transpose(1, 2).contiguous()

    def _convolve(self, layers: nn.ModuleList, x: Tensor) -> Tensor:
        items = torch.split(x, 1) if self.one_by_one else (x,)
        return torch.cat([_run(layers, item) for item in items])


def _run(layers: nn.ModuleList, x: Tensor) -> Tensor:
    residual: Tensor | None = None
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            x, residual = layer(x)
        else:
            x, residual = layer(x, residual), None
    return x
