"""A worker uses the requested precision or raises an error that explains why not."""

import pytest
import torch

from handlers.errors import DeviceError
from handlers.precision import CPU_FEATURES, choose_precision

CPU = torch.device("cpu")


@pytest.fixture(params=[None, *CPU_FEATURES])
def feature(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The only CPU feature for bfloat16 arithmetic that is available, if any."""
    present: str | None = request.param
    capabilities = {name: name == present for name in CPU_FEATURES} | {"avx512_f": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    return present


@pytest.mark.parametrize("requested", ["auto", None])
def test_bf16_is_chosen_if_the_cpu_supports_it(requested: str | None, feature: str | None) -> None:
    assert choose_precision(requested, CPU) == ("bf16" if feature else "fp32")


@pytest.mark.usefixtures("feature")
def test_fp32_is_available_on_every_cpu() -> None:
    assert choose_precision("fp32", CPU) == "fp32"


def test_bf16_is_not_silently_emulated(feature: str | None) -> None:
    if feature:
        assert choose_precision("bf16", CPU) == "bf16"
    else:
        with pytest.raises(DeviceError, match=r"--precision bf16.*cpu does not.*auto or fp32"):
            choose_precision("bf16", CPU)


@pytest.mark.parametrize("supported", [False, True])
def test_bf16_is_chosen_if_the_gpu_supports_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: supported,
    )
    assert choose_precision("auto", torch.device("cuda", 0)) == ("bf16" if supported else "fp32")


@pytest.mark.parametrize("requested", ["fp16", "BF16", "", "32"])
def test_an_unknown_precision_is_rejected(requested: str) -> None:
    with pytest.raises(DeviceError, match=f"precision is {requested!r}.*auto, fp32, bf16"):
        choose_precision(requested, CPU)
