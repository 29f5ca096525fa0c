"""Selects the numeric precision of a TorchServe worker."""

from typing import Literal, get_args

import torch

from handlers.errors import DeviceError

Precision = Literal["fp32", "bf16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
# CPU features with native bfloat16 multiplication; without them bf16 is slower than fp32.
CPU_FEATURES = ("avx512_bf16", "amx_bf16")


def choose_precision(requested: str | None, device: torch.device) -> Precision:
    """Select the precision for this worker.

    Args:
        requested: `precision` of the archive: "fp32", "bf16", or "auto" or None for bf16 if the
            device supports it natively.
        device: the device of the worker.

    Raises:
        DeviceError: `requested` is invalid, or is bf16 on a device without native support.
    """
    if requested == "fp32":
        return "fp32"
    if requested in ("auto", None):
        return "bf16" if supports_bf16(device) else "fp32"
    if requested != "bf16":
        allowed = ", ".join(get_args(Precision))
        raise DeviceError(
            f"precision is {requested!r} in model-config.yaml; it must be one of auto, {allowed}"
        )
    if not supports_bf16(device):
        raise DeviceError(
            f"this archive was packed with --precision bf16, which this machine's {device.type} "
            "does not support; pack it with --precision auto or fp32"
        )
    return "bf16"


def supports_bf16(device: torch.device) -> bool:
    """Return True if the device has native bfloat16 instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(feature) for feature in CPU_FEATURES)


def forbid_tf32() -> None:
    """Prevent GPUs from rounding the inputs of float32 convolutions and LSTMs to TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
