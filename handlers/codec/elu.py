"""A fused kernel for residual addition and ELU in a single pass over memory.

EnCodec applies ELU to nearly every activation. On a CPU with AVX512, PyTorch's ELU takes two to
four times as long as this kernel, and adding a residual and padding for the next convolution are
two more passes. This kernel adds and applies ELU in one pass, leaves room in its output for the few
padded steps, and is accurate to the last bit or two. Numba compiles it on the first call, which
takes seconds but needs no compiler on the machine. If NUMBA_CACHE_DIR is set, the compiled kernel
is cached there for later processes.
"""

from typing import Any, Literal

import numpy as np
import torch
from numba import njit, prange
from numba.core import config
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Padding = Literal["reflect", "zeros"]

CHUNK = 16_384  # elements; small enough to balance threads, large enough to amortize the overhead

# expm1 by Cody-Waite range reduction: v = n ln 2 + r, and exp(v) - 1 = 2^n expm1(r) + (2^n - 1).
# For |r| <= ln(2) / 2 a Taylor polynomial of degree 7 is accurate to float32 precision.
LOWEST = np.float32(-50)  # for smaller values expm1 is -1 in float32
LOG2_E = np.float32(1.44269504)
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
ROUNDING = np.float32(1.5 * 2**23)  # adding and subtracting it rounds to the nearest integer
C2, C3, C4, C5, C6, C7 = (np.float32(1 / f) for f in (2, 6, 24, 120, 720, 5040))
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)
ZERO, ONE = np.float32(0), np.float32(1)

CACHE_ENABLED = bool(config.CACHE_DIR)  # type: ignore[attr-defined]
config.CACHE_LOCATOR_CLASSES = "handlers.codec.compiled.ContentHashCacheLocator"  # type: ignore[attr-defined]


def elu(x: Tensor, residual: Tensor | None, left: int, padding: Padding) -> Tensor:
    """Compute ELU(x + residual), padded before the first time step.

    Args:
        x: [B, T, C], contiguous, float32 or bfloat16.
        residual: same shape and dtype as `x`, or None.
        left: number of time steps to pad.
        padding: zeros, or a reflection of the steps after the first one.

    Returns:
        [B, left + T, C], contiguous.
    """
    if x.device.type != "cpu":
        return pad(functional.elu(x if residual is None else x + residual), left, padding)
    batch, steps, channels = x.shape
    out = torch.empty(batch, left + steps, channels, dtype=x.dtype)
    kernel = KERNELS[x.dtype]
    residual_rows = None if residual is None else _rows(residual)
    kernel(_rows(x), residual_rows, _rows(out)[:, left * channels :])
    if left:
        out[:, :left] = _front(out[:, left:], left, padding)
    return out


def pad(x: Tensor, left: int, padding: Padding) -> Tensor:
    """Pad the signal [B, T, C] before its first time step: [B, left + T, C]."""
    return torch.cat([_front(x, left, padding), x], dim=1) if left else x


def _front(x: Tensor, left: int, padding: Padding) -> Tensor:
    if padding == "reflect":
        return x[:, 1 : left + 1].flip(1)
    return x.new_zeros(len(x), left, x.shape[2])


def _rows(x: Tensor) -> NDArray[Any]:
    """Return a NumPy view with one row per item, [B, T * C]; bfloat16 as its bit patterns."""
    assert x.is_contiguous()  # noqa: S101 - the kernel assumes this layout
    bits = x.view(torch.uint16) if x.dtype == torch.bfloat16 else x
    return bits.view(len(x), -1).numpy()


@njit(inline="always")
def _elu(x: np.float32) -> np.float32:
    v = max(min(x, ZERO), LOWEST)
    shifted = v * LOG2_E + ROUNDING
    n = shifted - ROUNDING
    r = v - n * LN_2_HIGH - n * LN_2_LOW
    tail = ((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2
    expm1 = tail * r * r + r
    power = np.int32((np.int32(n) + EXPONENT_BIAS) << MANTISSA_BITS).view(np.float32)
    return max(x, ZERO) + (power * expm1 + (power - ONE))


@njit(inline="always")
def _from_bfloat16(bits: np.uint16) -> np.float32:
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(inline="always")
def _to_bfloat16(x: np.float32) -> np.uint16:
    """Round to the nearest bfloat16, ties to even."""
    bits = np.float32(x).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


def _kernel(bfloat16: bool) -> Any:
    """Build the kernel for float32, or for bfloat16 as bit patterns."""

    @njit(cache=CACHE_ENABLED, parallel=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def elu_rows(x: NDArray[Any], residual: NDArray[Any] | None, out: NDArray[Any]) -> None:
        rows, columns = x.shape
        chunks = (columns + CHUNK - 1) // CHUNK
        for index in prange(rows * chunks):
            row, begin = index // chunks, index % chunks * CHUNK
            # The loops are vectorized only over slices, whose indices cannot be negative.
            x_part = x[row, begin : begin + CHUNK]
            out_part = out[row, begin : begin + CHUNK]
            if residual is None:
                for i in range(x_part.size):
                    if bfloat16:
                        out_part[i] = _to_bfloat16(_elu(_from_bfloat16(x_part[i])))
                    else:
                        out_part[i] = _elu(x_part[i])
            else:
                residual_part = residual[row, begin : begin + CHUNK]
                for i in range(x_part.size):
                    if bfloat16:
                        total = _from_bfloat16(x_part[i]) + _from_bfloat16(residual_part[i])
                        out_part[i] = _to_bfloat16(_elu(total))
                    else:
                        out_part[i] = _elu(x_part[i] + residual_part[i])

    return elu_rows


KERNELS = {
    torch.float32: _kernel(bfloat16=False),
    torch.bfloat16: _kernel(bfloat16=True),
}
