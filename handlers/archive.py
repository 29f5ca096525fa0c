"""What an unpacked archive holds, and how it becomes a pipeline."""

import json
from pathlib import Path
from typing import Any

import torch

from handlers.codec.codec import CodecKind, load_codec
from handlers.codec.encodec_network import LATENT_DIM
from handlers.errors import CheckpointError, ModelCodeError
from handlers.hashing import sha256
from handlers.model.checkpoint import Checkpoint, load_checkpoint
from handlers.pipeline import Pipeline
from handlers.precision import Precision

MANIFEST = "musiclab.json"
CHECKPOINT = "checkpoint.pt"
CODEC_WEIGHTS = "codec.th"


def load_archive(
    folder: Path, device: torch.device, precision: Precision
) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline that the unpacked archive in `folder` describes, and its manifest.

    Raises:
        ModelCodeError: the archive holds other weights than its manifest says, or they do not fit.
    """
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    for name, part in ((CHECKPOINT, "checkpoint"), (CODEC_WEIGHTS, "codec")):
        if sha256(folder / name) != manifest[part]["sha256"]:
            raise ModelCodeError(
                f"{name} in the archive is not the file of its manifest; pack anew"
            )
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    check_latent_dim(checkpoint)
    codec = load_codec(folder / CODEC_WEIGHTS, manifest["codec"]["kind"])
    return Pipeline(codec, checkpoint.model, device, precision), manifest


def check_latent_dim(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the model works on EnCodec's latents."""
    if checkpoint.args.encoding_dim != LATENT_DIM:
        raise CheckpointError(
            f"the checkpoint's encoding_dim is {checkpoint.args.encoding_dim}; EnCodec's latents "
            f"have {LATENT_DIM} channels, so it has to be {LATENT_DIM}"
        )


def check_pairing(checkpoint: Checkpoint, codec: CodecKind) -> None:
    """Raise CheckpointError for a trained checkpoint with the starter codec.

    It never heard that codec's latents.
    """
    if codec == "starter" and not checkpoint.starter:
        raise CheckpointError(
            "this checkpoint was trained, but on the latents of the official codec; with the "
            "starter codec it would make noise. Bring the official weights with "
            "`musiclab codec fetch`, or pack with --force"
        )
