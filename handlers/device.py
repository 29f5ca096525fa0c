"""Selects the device of a TorchServe worker. Never falls back to the CPU silently."""

import torch

from handlers.errors import DeviceError


def choose_device(requested: str | None, gpu_id: int | None) -> torch.device:
    """Select the device for this worker.

    Args:
        requested: `deviceType` of the archive: "cpu", "gpu", or None for a GPU if available.
        gpu_id: the GPU that TorchServe assigned to this worker; None if it assigned none.

    Raises:
        DeviceError: `requested` is invalid, or a GPU is requested or assigned but unusable.
    """
    if requested == "cpu" or (requested is None and gpu_id is None):
        return torch.device("cpu")
    if requested not in (None, "gpu"):
        raise DeviceError(
            f"deviceType is {requested!r} in model-config.yaml; it must be cpu or gpu"
        )
    if gpu_id is None:
        raise DeviceError(
            "this archive was packed with --device gpu, but TorchServe found no GPU; "
            "run it on a machine with a GPU, or pack it with --device cpu"
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            f"TorchServe assigned GPU {gpu_id}, but torch {torch.__version__} cannot use it; "
            "install a torch build that supports this GPU, or pack with --device cpu"
        )
    return torch.device("cuda", gpu_id)


def describe(device: torch.device) -> str:
    """Describe the device for logs: `cpu (2 threads)` or `cuda:0 (NVIDIA H200)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
