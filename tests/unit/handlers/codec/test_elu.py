"""The fused ELU: its accuracy, special values, the fused sum, and padding."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from handlers.codec.elu import CHUNK, Padding, elu, pad

EVERY_BFLOAT16 = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)


def activated(x: Tensor, plus: Tensor | None = None) -> Tensor:
    """ELU of [T, C] or [N], without padding."""
    rows = x.view(1, -1, 1) if x.dim() == 1 else x[None]
    more = None if plus is None else plus.view(rows.shape)
    return elu(rows, more, 0, "zeros").view(x.shape)


def test_every_bfloat16_is_rounded_correctly() -> None:
    finite = EVERY_BFLOAT16[EVERY_BFLOAT16.isfinite()]
    expected = functional.elu(finite.double())
    error = (activated(finite).double() - expected).abs()
    # Half a unit in the last place, plus a hundredth for the kernel's intermediate rounding.
    assert (error <= 0.51 * 2**-7 * expected.abs()).logical_or(error < 1e-38).all()


def test_float32_is_accurate_to_two_units_in_the_last_place() -> None:
    magnitudes = torch.logspace(-30, 3, 100_000)
    x = torch.cat([-magnitudes, magnitudes])
    expected = functional.elu(x.double())
    assert ((activated(x).double() - expected).abs() <= 2 * 2**-23 * expected.abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_infinity_are_propagated(dtype: torch.dtype) -> None:
    x = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.0], dtype=dtype).repeat(40)
    torch.testing.assert_close(activated(x), functional.elu(x), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_is_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    x, plus = torch.randn(2, CHUNK + 77, generator=generator).to(dtype)
    expected = functional.elu(x.double() + plus.double())
    error = (activated(x, plus).double() - expected).abs()
    assert error.max() <= torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("left", [0, 1, 6])
@pytest.mark.parametrize("shape", [(1, 7, 3), (3, 1200, 512), (2, CHUNK // 8 + 1, 8)])
def test_padding_is_added_at_the_start(
    shape: tuple[int, int, int], left: int, padding: Padding
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    channels_first = functional.elu(x).transpose(1, 2)
    mode = "reflect" if padding == "reflect" else "constant"
    expected = functional.pad(channels_first, (left, 0), mode=mode).transpose(1, 2)
    torch.testing.assert_close(elu(x, None, left, padding), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(pad(functional.elu(x), left, padding), expected, rtol=0, atol=0)
