"""Which device a worker runs on. Never a quiet fallback to the CPU."""

import torch

from handlers.errors import DeviceError


def choose_device(asked: str | None, gpu_id: int | None) -> torch.device:
    """The device for this worker.

    Args:
        asked: `deviceType` of the archive: "cpu", "gpu", or None for a GPU if there is one.
        gpu_id: the GPU that the server assigned to this worker; None if it assigned none.

    Raises:
        DeviceError: a GPU is wanted or assigned, but cannot be used.
    """
    if asked == "cpu" or (asked is None and gpu_id is None):
        return torch.device("cpu")
    if asked not in (None, "gpu"):
        raise DeviceError(f"deviceType is {asked!r} in model-config.yaml; it has to be cpu or gpu")
    if gpu_id is None:
        raise DeviceError(
            "this archive was packed with --device gpu, but the server found no GPU; "
            "serve it on a machine with one, or pack it with --device cpu"
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            f"the server assigned GPU {gpu_id}, but torch {torch.__version__} cannot use it; "
            "install a torch built for this GPU, or pack with --device cpu"
        )
    return torch.device("cuda", gpu_id)


def describe(device: torch.device) -> str:
    """The device in words, for logs: `cpu (2 threads)` or `cuda:0 (NVIDIA H200)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
