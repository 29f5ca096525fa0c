"""What packing asks of the model code, as a command: `python -m handlers.prepare`.

Packing runs this from the very copy of the code that goes into the archive, so what is checked is
what will serve. The answer is JSON on standard output; a refusal is {"refused": sentence} with exit
status 2.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from handlers import codec, starter_checkpoint
from handlers.archive import (
    CHECKPOINT,
    CODEC_WEIGHTS,
    check_latent_dim,
    check_pairing,
)
from handlers.checkpoint import load_checkpoint
from handlers.errors import MusicLabError
from handlers.files import sha256

REFUSED = 2


def build_starters(folder: Path) -> dict[str, Any]:
    """Write the starter checkpoint and the starter codec into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    starter_checkpoint.save_starter(folder / starter_checkpoint.NAME)
    codec.save_starter(folder / codec.STARTER_NAME)
    return {}


def stage_weights(
    checkpoint_file: Path, codec_file: Path, kind: codec.CodecKind, force: bool, into: Path
) -> dict[str, Any]:
    """Check both weights, copy them into the folder that becomes the archive, return its facts."""
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
    parser = argparse.ArgumentParser(prog="python -m handlers.prepare", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    starters = commands.add_parser("starters", help="build the starter weights")
    starters.add_argument("folder", type=Path)
    fetch = commands.add_parser("fetch-codec", help="download the official codec weights")
    fetch.add_argument("folder", type=Path)
    stage = commands.add_parser("stage", help="check weights and copy them into an archive")
    stage.add_argument("--checkpoint", type=Path, required=True)
    stage.add_argument("--codec", type=Path, required=True)
    stage.add_argument("--kind", choices=["official", "starter"], required=True)
    stage.add_argument("--force", action="store_true")
    stage.add_argument("--into", type=Path, required=True)
    options = parser.parse_args()
    try:
        if options.command == "starters":
            result = build_starters(options.folder)
        elif options.command == "fetch-codec":
            result = {"path": str(codec.fetch_official(options.folder))}
        else:
            result = stage_weights(
                options.checkpoint, options.codec, options.kind, options.force, options.into
            )
    except MusicLabError as error:
        print(json.dumps({"refused": str(error)}))
        sys.exit(REFUSED)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
