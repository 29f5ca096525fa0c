"""A worker uses the requested device or raises an error that explains why not."""

import pytest
import torch

from handlers.device import choose_device, describe
from handlers.errors import DeviceError


@pytest.fixture(params=[False, True], ids=["no cuda", "cuda"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """True if torch can use a GPU."""
    available: bool = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    return available


@pytest.mark.parametrize(
    ("requested", "gpu_id"), [("cpu", None), ("cpu", 0), ("cpu", 3), (None, None)]
)
@pytest.mark.usefixtures("cuda")
def test_the_cpu_is_used_on_request_or_without_a_gpu(
    requested: str | None, gpu_id: int | None
) -> None:
    assert choose_device(requested, gpu_id) == torch.device("cpu")


@pytest.mark.parametrize("gpu_id", [0, 3])
@pytest.mark.parametrize("requested", [None, "gpu"])
def test_the_gpu_assigned_by_the_server_is_used(
    cuda: bool, requested: str | None, gpu_id: int
) -> None:
    if cuda:
        assert choose_device(requested, gpu_id) == torch.device("cuda", gpu_id)
    else:
        with pytest.raises(DeviceError, match=rf"GPU {gpu_id}, but torch .* cannot use it"):
            choose_device(requested, gpu_id)


@pytest.mark.usefixtures("cuda")
def test_an_archive_that_requires_a_gpu_does_not_run_on_the_cpu() -> None:
    with pytest.raises(DeviceError, match=r"found no GPU.*--device cpu"):
        choose_device("gpu", None)


@pytest.mark.parametrize("gpu_id", [None, 0])
@pytest.mark.parametrize("requested", ["tpu", "GPU", "cuda:0", ""])
@pytest.mark.usefixtures("cuda")
def test_an_unknown_device_is_rejected(requested: str, gpu_id: int | None) -> None:
    with pytest.raises(DeviceError, match=f"deviceType is {requested!r}.*cpu or gpu"):
        choose_device(requested, gpu_id)


def test_the_cpu_is_described_with_its_threads() -> None:
    assert describe(torch.device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"


def test_a_gpu_is_described_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    assert describe(torch.device("cuda", 1)) == "cuda:1 (NVIDIA H200)"
