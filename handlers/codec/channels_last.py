"""EnCodec's encoder and decoder, computed the way processors like it.

The same numbers as the library's network with its norms folded, but activations lie as [B, T, C],
channels last, so that every convolution is a matrix product over contiguous memory:
- a convolution over time is a 2-D one over [B, C, 1, T] in the channels-last format;
- the padding is written together with the ELU before it;
- a transposed convolution of kernel 2 s and stride s is a convolution of kernel 2 to s times the
  channels, whose result is, in memory, already the longer signal.
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
        activates: whether there is an ELU before it.
    """

    padding: Padding = "reflect"

    def __init__(self, wrapped: nn.Module, activates: bool) -> None:
        super().__init__()
        conv = next(module for module in wrapped.modules() if isinstance(module, nn.Conv1d))
        self.activates = activates
        self.stride = conv.stride[0]
        self.left = conv.kernel_size[0] - self.stride
        self._take(conv.weight, conv.bias)

    def _take(self, weight: Tensor, bias: Tensor | None) -> None:
        assert bias is not None  # noqa: S101 - EnCodec's convolutions have one
        image = weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(image, requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """The convolution of ELU(x + plus), or of x alone where no ELU belongs."""
        if self.activates:
            x = elu(x, plus, self.left, self.padding)
        else:
            x = pad(x, self.left, self.padding)
        image = x.transpose(1, 2)[:, :, None]
        y = functional.conv2d(image, self.weight, self.bias, stride=(1, self.stride))
        return y[:, :, 0].transpose(1, 2).contiguous()


class TransposedConvolution(Convolution):
    """A transposed convolution of ELU(x): [B, T, C] -> [B, T stride, D].

    y[t s + j] = W[:, :, j] x[t] + W[:, :, s + j] x[t - 1], with nothing before the first step.
    """

    padding: Padding = "zeros"

    def __init__(self, wrapped: nn.Module) -> None:
        nn.Module.__init__(self)
        conv = next(each for each in wrapped.modules() if isinstance(each, nn.ConvTranspose1d))
        assert conv.bias is not None  # noqa: S101 - EnCodec's convolutions have one
        self.activates, self.stride, self.left = True, 1, 1
        self.factor = factor = conv.stride[0]
        earlier, present = conv.weight[:, :, factor:], conv.weight[:, :, :factor]
        taps = torch.stack([earlier, present], dim=-1)  # [C, D, s, 2]
        self._take(taps.permute(2, 1, 0, 3).flatten(0, 1), conv.bias.repeat(factor))

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        y = super().forward(x, plus)
        return y.view(len(y), y.shape[1] * self.factor, -1)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; what it returns, added up, is its output.

    Whatever comes next applies ELU to it, and adds both up on the way.
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
    """The encoder [B, 1, S] -> [B, 128, S / 320], or the decoder the other way round.

    S has to be a multiple of 320.

    Args:
        network: the library's, its norms folded.
        one_by_one: whether the convolutions take one item of the batch after the other. Then its
            activations fit into the cache of a CPU. The LSTM, whose cost hardly depends on their
            number, always takes all at once.
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
    plus: Tensor | None = None
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            x, plus = layer(x)
        else:
            x, plus = layer(x, plus), None
    return x
