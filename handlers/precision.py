"""Which numbers a worker computes with."""

from typing import Literal, get_args

import torch

from handlers.errors import DeviceError

Precision = Literal["fp32", "bf16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
# CPUs that multiply bfloat16 themselves; on others it is slower than float32.
CPU_FEATURES = ("avx512_bf16", "amx_bf16")


def choose_precision(asked: str | None, device: torch.device) -> Precision:
    """The precision for this worker.

    Args:
        asked: `precision` of the archive: "fp32", "bf16", or "auto" or None for bf16 where the
            device computes it.
        device: where the worker runs.

    Raises:
        DeviceError: it is none of these, or bf16 on a device that does not compute it.
    """
    if asked == "fp32":
        return "fp32"
    if asked in ("auto", None):
        return "bf16" if computes_bf16(device) else "fp32"
    if asked != "bf16":
        allowed = ", ".join(get_args(Precision))
        raise DeviceError(
            f"precision is {asked!r} in model-config.yaml; it has to be auto, {allowed}"
        )
    if not computes_bf16(device):
        raise DeviceError(
            f"this archive was packed with --precision bf16, which this machine's {device.type} "
            "does not compute; pack it with --precision auto or fp32"
        )
    return "bf16"


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(feature) for feature in CPU_FEATURES)


def forbid_tf32() -> None:
    """Keep float32 exact on a GPU, where convolutions and LSTMs would shorten it to TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
