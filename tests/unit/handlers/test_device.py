"""A worker gets the device that was asked for, or a sentence."""

import pytest
import torch

from handlers.device import choose_device, describe
from handlers.errors import DeviceError


@pytest.fixture(params=[False, True], ids=["no cuda", "cuda"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether torch can use a GPU."""
    available: bool = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    return available


@pytest.mark.parametrize(("asked", "gpu_id"), [("cpu", None), ("cpu", 0), ("cpu", 3), (None, None)])
@pytest.mark.usefixtures("cuda")
def test_the_cpu_when_asked_for_or_nothing_else_is_there(
    asked: str | None, gpu_id: int | None
) -> None:
    assert choose_device(asked, gpu_id) == torch.device("cpu")


@pytest.mark.parametrize("gpu_id", [0, 3])
@pytest.mark.parametrize("asked", [None, "gpu"])
def test_the_gpu_that_the_server_assigned(cuda: bool, asked: str | None, gpu_id: int) -> None:
    if cuda:
        assert choose_device(asked, gpu_id) == torch.device("cuda", gpu_id)
    else:
        with pytest.raises(DeviceError, match=rf"GPU {gpu_id}, but torch .* cannot use it"):
            choose_device(asked, gpu_id)


@pytest.mark.usefixtures("cuda")
def test_no_quiet_cpu_for_an_archive_that_wants_a_gpu() -> None:
    with pytest.raises(DeviceError, match=r"found no GPU.*--device cpu"):
        choose_device("gpu", None)


@pytest.mark.parametrize("gpu_id", [None, 0])
@pytest.mark.parametrize("asked", ["tpu", "GPU", "cuda:0", ""])
@pytest.mark.usefixtures("cuda")
def test_a_device_of_no_known_kind(asked: str, gpu_id: int | None) -> None:
    with pytest.raises(DeviceError, match=f"deviceType is {asked!r}.*cpu or gpu"):
        choose_device(asked, gpu_id)


def test_the_cpu_is_described_with_its_threads() -> None:
    assert describe(torch.device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"


def test_a_gpu_is_described_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    assert describe(torch.device("cuda", 1)) == "cuda:1 (NVIDIA H200)"
