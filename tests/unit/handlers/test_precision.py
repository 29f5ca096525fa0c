"""A worker computes with what was asked for, or says why it cannot."""

import pytest
import torch

from handlers.errors import DeviceError
from handlers.precision import CPU_FEATURES, choose_precision

CPU = torch.device("cpu")


@pytest.fixture(params=[None, *CPU_FEATURES])
def feature(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What the CPU has of what computes bfloat16."""
    present: str | None = request.param
    capabilities = {name: name == present for name in CPU_FEATURES} | {"avx512_f": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    return present


@pytest.mark.parametrize("asked", ["auto", None])
def test_bf16_where_the_cpu_computes_it(asked: str | None, feature: str | None) -> None:
    assert choose_precision(asked, CPU) == ("bf16" if feature else "fp32")


@pytest.mark.usefixtures("feature")
def test_fp32_everywhere() -> None:
    assert choose_precision("fp32", CPU) == "fp32"


def test_no_quiet_emulation_of_bf16(feature: str | None) -> None:
    if feature:
        assert choose_precision("bf16", CPU) == "bf16"
    else:
        with pytest.raises(DeviceError, match=r"--precision bf16.*cpu does not.*auto or fp32"):
            choose_precision("bf16", CPU)


@pytest.mark.parametrize("able", [False, True])
def test_a_gpu_says_whether_it_computes_bf16(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: able,
    )
    assert choose_precision("auto", torch.device("cuda", 0)) == ("bf16" if able else "fp32")


@pytest.mark.parametrize("asked", ["fp16", "BF16", "", "32"])
def test_a_precision_of_no_known_kind(asked: str) -> None:
    with pytest.raises(DeviceError, match=f"precision is {asked!r}.*auto, fp32, bf16"):
        choose_precision(asked, CPU)
