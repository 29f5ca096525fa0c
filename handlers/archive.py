"""Loads an unpacked archive into a pipeline and checks that its parts fit together."""

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
    """Load the unpacked archive in `folder`; return its pipeline and its manifest.

    Raises:
        ModelCodeError: the weights do not match the manifest, or do not fit the model.
    """
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    for name, part in ((CHECKPOINT, "checkpoint"), (CODEC_WEIGHTS, "codec")):
        if sha256(folder / name) != manifest[part]["sha256"]:
            raise ModelCodeError(
                f"the SHA-256 of {name} does not match the archive's manifest; pack it again"
            )
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    check_latent_dim(checkpoint)
    codec = load_codec(folder / CODEC_WEIGHTS, manifest["codec"]["kind"])
    return Pipeline(codec, checkpoint.model, device, precision), manifest


def check_latent_dim(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the model's latent dimension is EnCodec's."""
    if checkpoint.args.encoding_dim != LATENT_DIM:
        raise CheckpointError(
            f"the checkpoint's encoding_dim is {checkpoint.args.encoding_dim}; it must be "
            f"{LATENT_DIM}, the number of channels of EnCodec's latents"
        )


def check_pairing(checkpoint: Checkpoint, codec: CodecKind) -> None:
    """Raise CheckpointError for a trained checkpoint with the starter codec.

    Trained checkpoints expect the latents of the official codec; those of the starter codec are
    outside their training data.
    """
    if codec == "starter" and not checkpoint.starter:
        raise CheckpointError(
            "this checkpoint was trained on the latents of the official codec; with the starter "
            "codec it would generate noise. Download the official weights with "
            "`musiclab codec fetch`, or pack with --force"
        )
