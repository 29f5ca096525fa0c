"""The inputs of an archive: checkpoint, codec weights, device, precision, and the model code."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.errors import PackError
from orchestrator.paths import PATHS
from orchestrator.settings import Settings

HANDLERS = PATHS.handlers
MODEL_CONFIG = "model-config.yaml"
TUNED_CONFIGS = {"cpu": "model-config.cpu.yaml", "gpu": "model-config.gpu.yaml"}
BEST_MODEL = "best_model.pt"
OFFICIAL_CODEC = "encodec_24khz-d7cc33bc.th"

CodecKind = Literal["official", "starter"]
Device = Literal["cpu", "gpu"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class ArchiveInputs:
    """The inputs of an archive in addition to the code.

    Attributes:
        checkpoint: file of the checkpoint; None for the starter checkpoint.
        codec: file of the official codec weights; None for the starter codec.
        device: required device; None uses a GPU if one is available.
        precision: numeric precision; "auto" uses bf16 if the device supports it natively.
    """

    checkpoint: Path | None
    codec: Path | None
    device: Device | None
    precision: Precision = "auto"

    @property
    def tuned_for(self) -> Device:
        """The device whose batch sizes apply: the required one, else that of this machine."""
        return self.device or ("gpu" if shutil.which("nvidia-smi") else "cpu")

    @property
    def config(self) -> str:
        """The archive's model-config.yaml."""
        files = (HANDLERS / MODEL_CONFIG, HANDLERS / TUNED_CONFIGS[self.tuned_for])
        device_line = "" if self.device is None else f"deviceType: {self.device}\n"
        text = "".join(file.read_text() for file in files)
        return f"{text}\nprecision: {self.precision}\n{device_line}"

    def fingerprint(self) -> str:
        """Returns a SHA-256 over the code, the weights and the configuration."""
        parts = [self.config]
        parts += [f"{file} {_sha256(HANDLERS / file)}" for file in sorted(code_files())]
        parts += [_sha256(file) if file else "starter" for file in (self.checkpoint, self.codec)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def choose_inputs(
    settings: Settings,
    checkpoint: Path | None = None,
    codec: CodecKind | None = None,
    device: Device | None = None,
    precision: Precision = "auto",
) -> ArchiveInputs:
    """Fills in defaults: the weights in checkpoints/ if they exist, else the starter weights.

    Raises:
        PackError: a requested file does not exist.
    """
    best_model = settings.checkpoints / BEST_MODEL
    official = settings.checkpoints / OFFICIAL_CODEC
    if checkpoint is None and best_model.exists():
        checkpoint = best_model
    if checkpoint is not None and not checkpoint.is_file():
        raise PackError(f"there is no checkpoint at {checkpoint}")
    if codec == "official" and not official.is_file():
        raise PackError(
            f"the official codec weights are missing at {official}; download them with "
            "`musiclab codec fetch`, or pack with --codec starter"
        )
    use_official = codec == "official" or (codec is None and official.exists())
    return ArchiveInputs(checkpoint, official if use_official else None, device, precision)


def code_files() -> list[Path]:
    """Returns the Python files of the model code, relative to HANDLERS."""
    return [file.relative_to(HANDLERS) for file in HANDLERS.rglob("*.py")]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
