"""ELU in a single pass over memory, with the sum before it and the padding after it.

EnCodec applies ELU to nearly every activation it computes. On a CPU with AVX512 PyTorch's takes two
to four times as long as this one, and adding a residual and padding for the next convolution are
two more passes. This kernel does all three in one, right to the last bit or two. Numba compiles it
when it is first called, which takes seconds but no compiler on the machine; where NUMBA_CACHE_DIR
names a folder, it is kept there for the next process.
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

CHUNK = 16_384  # elements; small enough to share evenly among threads, large enough to be worth it

# expm1 by Cody and Waite's reduction: v = n ln 2 + r, and exp(v) - 1 = 2^n expm1(r) + (2^n - 1)
# with |r| <= ln(2) / 2, where a Taylor polynomial of degree 7 is exact to float32.
LOWEST = np.float32(-50)  # below it expm1 is -1 in float32
LOG2_E = np.float32(1.44269504)
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
ROUNDING = np.float32(1.5 * 2**23)  # adding it rounds to the nearest integer
C2, C3, C4, C5, C6, C7 = (np.float32(1 / f) for f in (2, 6, 24, 120, 720, 5040))
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)
ZERO, ONE = np.float32(0), np.float32(1)

CACHE_ENABLED = bool(config.CACHE_DIR)  # type: ignore[attr-defined]
config.CACHE_LOCATOR_CLASSES = "handlers.codec.compiled.ContentHashCacheLocator"  # type: ignore[attr-defined]


def elu(x: Tensor, plus: Tensor | None, left: int, padding: Padding) -> Tensor:
    """ELU of x + plus, padded in front of its first time step.

    Args:
        x: [B, T, C], contiguous, float32 or bfloat16.
        plus: the same, or None.
        left: how many steps to pad.
        padding: with zeros, or with a reflection of the steps behind the first one.

    Returns:
        [B, left + T, C], contiguous.
    """
    if x.device.type != "cpu":
        return pad(functional.elu(x if plus is None else x + plus), left, padding)
    batch, steps, channels = x.shape
    out = torch.empty(batch, left + steps, channels, dtype=x.dtype)
    kernel = KERNELS[x.dtype]
    kernel(_rows(x), None if plus is None else _rows(plus), _rows(out)[:, left * channels :])
    if left:
        out[:, :left] = _front(out[:, left:], left, padding)
    return out


def pad(x: Tensor, left: int, padding: Padding) -> Tensor:
    """The signal [B, T, C] padded in front of its first time step: [B, left + T, C]."""
    return torch.cat([_front(x, left, padding), x], dim=1) if left else x


def _front(x: Tensor, left: int, padding: Padding) -> Tensor:
    if padding == "reflect":
        return x[:, 1 : left + 1].flip(1)
    return x.new_zeros(len(x), left, x.shape[2])


def _rows(x: Tensor) -> NDArray[Any]:
    """The numbers of each item in a row, bfloat16 as its bits: [B, T * C]."""
    assert x.is_contiguous()  # noqa: S101 - the kernel would read other numbers
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
    """The nearest, or of two the even one."""
    bits = np.float32(x).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


def _kernel(bfloat16: bool) -> Any:
    """The kernel for the bits of bfloat16, or for float32."""

    @njit(cache=CACHE_ENABLED, parallel=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def elu_rows(x: NDArray[Any], plus: NDArray[Any] | None, out: NDArray[Any]) -> None:
        rows, columns = x.shape
        chunks = (columns + CHUNK - 1) // CHUNK
        for index in prange(rows * chunks):
            row, begin = index // chunks, index % chunks * CHUNK
            # Slices, whose indices cannot be negative: only so are the loops vectorised.
            x_part = x[row, begin : begin + CHUNK]
            out_part = out[row, begin : begin + CHUNK]
            if plus is None:
                for i in range(x_part.size):
                    if bfloat16:
                        out_part[i] = _to_bfloat16(_elu(_from_bfloat16(x_part[i])))
                    else:
                        out_part[i] = _elu(x_part[i])
            else:
                plus_part = plus[row, begin : begin + CHUNK]
                for i in range(x_part.size):
                    if bfloat16:
                        total = _from_bfloat16(x_part[i]) + _from_bfloat16(plus_part[i])
                        out_part[i] = _to_bfloat16(_elu(total))
                    else:
                        out_part[i] = _elu(x_part[i] + plus_part[i])

    return elu_rows


KERNELS = {
    torch.float32: _kernel(bfloat16=False),
    torch.bfloat16: _kernel(bfloat16=True),
}
