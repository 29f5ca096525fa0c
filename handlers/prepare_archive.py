"""Packing's interface to the model code: `python -m handlers.prepare_archive`.

Packing runs this command from the copy of the code that goes into the archive, so that the weights
are checked by the code that will load them. The result is JSON on standard output; an error is
{"refused": message} with exit status 2.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from handlers.archive import (
    CHECKPOINT,
    CODEC_WEIGHTS,
    check_latent_dim,
    check_pairing,
)
from handlers.codec import codec
from handlers.errors import ModelCodeError
from handlers.hashing import sha256
from handlers.model import starter_checkpoint
from handlers.model.checkpoint import load_checkpoint

REFUSED = 2


def stage(
    checkpoint_file: Path | None, codec_file: Path | None, starters: Path, force: bool, into: Path
) -> dict[str, Any]:
    """Check the weights and copy them into the archive's directory; return manifest entries.

    Args:
        checkpoint_file: a checkpoint; None for the starter checkpoint.
        codec_file: EnCodec's official weights; None for the starter codec.
        starters: directory to which both starter weights are written if one of them is needed.
        force: allow a trained checkpoint with the starter codec.
        into: the directory that becomes the archive.
    """
    kind: codec.CodecKind = "starter" if codec_file is None else "official"
    if checkpoint_file is None or codec_file is None:
        starters.mkdir(parents=True, exist_ok=True)
        starter_checkpoint.save_starter(starters / starter_checkpoint.NAME)
        codec.save_starter(starters / codec.STARTER_NAME)
    checkpoint_file = checkpoint_file or starters / starter_checkpoint.NAME
    codec_file = codec_file or starters / codec.STARTER_NAME
    checkpoint = load_checkpoint(checkpoint_file)
    check_latent_dim(checkpoint)
    codec.load_codec(codec_file, kind)
    if not force:
        check_pairing(checkpoint, kind)
    shutil.copyfile(checkpoint_file, into / CHECKPOINT)
    shutil.copyfile(codec_file, into / CODEC_WEIGHTS)
    return {
        "checkpoint": checkpoint.facts,
        "codec": {"kind": kind, "sha256": sha256(codec_file)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m handlers.prepare_archive", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch-codec", help="download the official codec weights")
    fetch.add_argument("folder", type=Path)
    staging = commands.add_parser("stage", help="check weights and copy them into an archive")
    staging.add_argument("--checkpoint", type=Path)
    staging.add_argument("--codec", type=Path)
    staging.add_argument("--starters", type=Path, required=True)
    staging.add_argument("--force", action="store_true")
    staging.add_argument("--into", type=Path, required=True)
    options = parser.parse_args()
    try:
        if options.command == "fetch-codec":
            result = {"path": str(codec.fetch_official(options.folder))}
        else:
            result = stage(
                options.checkpoint, options.codec, options.starters, options.force, options.into
            )
    except (ModelCodeError, OSError) as error:
        print(json.dumps({"refused": str(error)}))
        sys.exit(REFUSED)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
