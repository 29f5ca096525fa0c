"""Layers shared by the cascade and its agents."""

import math

import torch
from torch import Tensor, nn

MAX_FRAMES = 2000


def rms(v: Tensor) -> Tensor:
    """Compute the root mean square of each item: [B, D, T] -> [B, 1, 1]."""
    return torch.sqrt(v.square().mean(dim=(1, 2), keepdim=True) + 1e-8)


class SinusoidalEncoding(nn.Module):
    """Adds a fixed table of sines (even channels) and cosines (odd channels) to [B, T, d]."""

    pe: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        table = torch.zeros(1, MAX_FRAMES, d_model)
        # On the meta device arange would import sympy, which takes a second.
        if not table.is_meta:
            position = torch.arange(MAX_FRAMES, dtype=torch.float32)[:, None]
            rate = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
            table[0, :, 0::2] = torch.sin(position * rate)
            table[0, :, 1::2] = torch.cos(position * rate[: d_model // 2])
        self.register_buffer("pe", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


class TransformerEncoder(nn.TransformerEncoder):
    """Post-norm transformer encoder over [B, T, d_model], feed-forward of 4 d_model, exact GELU.

    Its weights may be bfloat16 while the rest of the model is float32: the input is converted to
    the dtype of the weights, and the output back to the dtype of the input.
    """

    def __init__(self, d_model: int, nhead: int, num_layers: int) -> None:
        layer = nn.TransformerEncoderLayer(
            d_model, nhead, dim_feedforward=4 * d_model, activation="gelu", batch_first=True
        )
        super().__init__(layer, num_layers, enable_nested_tensor=False)

    def forward(self, src: Tensor) -> Tensor:  # type: ignore[override]  # no masks
        dtype = next(self.parameters()).dtype
        encoded: Tensor = super().forward(src.to(dtype))
        return encoded.to(src.dtype)
