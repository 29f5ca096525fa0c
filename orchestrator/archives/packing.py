"""Packs archives.

The model code is never imported here: packing runs the archive's own copy of it, so the checks
apply to the code that will be served.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.archives import packing_inputs
from orchestrator.archives.archive import (
    MANIFEST,
    MODEL_NAME,
    archive_path,
    environment_without_pythonpath,
    list_archives,
    read_manifest,
)
from orchestrator.archives.model_packages import require_packages
from orchestrator.archives.packing_inputs import MODEL_CONFIG, ArchiveInputs, code_files
from orchestrator.errors import ArchiveError, CodecFetchError, MusicLabError, PackError
from orchestrator.settings import Settings

HANDLER_FILE = "musiclab_handler.py"
STARTER_FOLDER = "starter"
REFUSED = 2  # exit status of handlers.prepare_archive
VERSION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def fetch_codec(settings: Settings) -> Path:
    """Downloads and verifies the official codec weights; shows a progress bar.

    Raises:
        ModelPackagesMissingError: packages required by the model are not installed.
        CodecFetchError: the download failed, or the file is not the official one.
    """
    folder = settings.checkpoints.resolve()
    output = _run_model_code(
        packing_inputs.HANDLERS.parent, CodecFetchError, "fetch-codec", str(folder)
    )
    return Path(output["path"])


def pack(
    settings: Settings,
    inputs: ArchiveInputs,
    version: str | None = None,
    force: bool = False,
) -> Path:
    """Checks the inputs and builds an archive in the model store.

    Args:
        settings: settings with the paths of the model store and the checkpoints.
        inputs: weights and configuration to pack with the code.
        version: name of the version, not yet in the store; by default the time and a random suffix.
        force: whether to allow a trained checkpoint with the starter codec.

    Raises:
        ModelPackagesMissingError: packages required by the model are not installed.
        PackError: the version already exists, its name is malformed, or the weights are unusable.
    """
    created, fingerprint = datetime.now(UTC).replace(microsecond=0), inputs.fingerprint()
    if version is None:
        version = f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    if not VERSION_PATTERN.fullmatch(version):
        raise PackError(
            f"--version is {version!r}; it must have 1 to 64 letters, digits, '.', '_' or '-', and "
            "start with a letter or digit"
        )
    archive = archive_path(settings.model_store.resolve(), version)
    if archive.exists():
        raise PackError(f"version {version} already exists at {archive}; choose another --version")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=archive.parent) as scratch:
        content = Path(scratch, "content")
        starters = _starter_folder(settings.checkpoints.resolve(), Path(scratch))
        facts = _stage(content, inputs, starters, force)
        manifest = {
            "model": MODEL_NAME,
            "version": version,
            "created_at": created.isoformat(),
            "device": inputs.device or "gpu if available, else cpu",
            "precision": inputs.precision,
            "fingerprint": fingerprint,
            **facts,
        }
        (content / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        built = _archive(Path(scratch), content, version)
        try:
            os.link(built, archive)  # unlike a rename, never replaces an existing file
        except FileExistsError:
            raise PackError(f"another process has just packed version {version}") from None
    return archive


def find_packed(settings: Settings, inputs: ArchiveInputs) -> Path | None:
    """Returns the newest archive in the store built from exactly these inputs and this code."""
    wanted = inputs.fingerprint()
    for archive in list_archives(settings.model_store.resolve()):
        try:
            if read_manifest(archive).get("fingerprint") == wanted:
                return archive
        except ArchiveError:
            continue
    return None


def _starter_folder(checkpoints: Path, scratch: Path) -> Path:
    """Returns the directory for starter weights: in checkpoints/, unless it is read-only."""
    folder = checkpoints / STARTER_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return scratch / STARTER_FOLDER
    return folder if os.access(folder, os.W_OK) else scratch / STARTER_FOLDER


def _stage(content: Path, inputs: ArchiveInputs, starters: Path, force: bool) -> dict[str, Any]:
    """Writes the archive's content, and runs the code in it to check and describe the weights."""
    code = content / packing_inputs.HANDLERS.name
    for file in code_files():
        if file.name != HANDLER_FILE:  # the handler file goes to the archive's root
            (code / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(packing_inputs.HANDLERS / file, code / file)
    (content / MODEL_CONFIG).write_text(inputs.config)
    options = [f"--starters={starters}", f"--into={content}"]
    if inputs.checkpoint is not None:
        options.append(f"--checkpoint={inputs.checkpoint.resolve()}")
    if inputs.codec is not None:
        options.append(f"--codec={inputs.codec.resolve()}")
    if force:
        options.append("--force")
    return _run_model_code(content, PackError, "stage", *options)


def _archive(scratch: Path, content: Path, version: str) -> Path:
    """Runs torch-model-archiver; returns the .mar file in `scratch`."""
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "model_archiver.model_packaging",
            f"--model-name={MODEL_NAME}",
            f"--version={version}",
            f"--handler={packing_inputs.HANDLERS / HANDLER_FILE}",
            f"--extra-files={content}",
            f"--config-file={content / MODEL_CONFIG}",
            f"--export-path={scratch}",
            "--archive-format=zip-store",  # weights do not compress, and load faster uncompressed
        ],
        # The archiver works in a subdirectory of TMPDIR that is named after the model, so two
        # concurrent runs would overwrite each other's files.
        env=_packing_environment() | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise PackError(f"torch-model-archiver failed: {result.stderr.strip()}")
    return scratch / f"{MODEL_NAME}.mar"


def _run_model_code(root: Path, failure: type[MusicLabError], *arguments: str) -> dict[str, Any]:
    """Runs `python -m handlers.prepare_archive` with the handlers/ in `root`; returns its output.

    Raises:
        ModelPackagesMissingError: packages required by the model are not installed.
        failure: the command rejected its input, or crashed.
    """
    require_packages()
    process = subprocess.run(
        [sys.executable, "-m", "handlers.prepare_archive", *arguments],
        cwd=root,
        env=_packing_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode not in (0, REFUSED):
        raise failure(f"the model code failed ({arguments[0]}); see its error above")
    output: dict[str, Any] = json.loads(process.stdout)
    if process.returncode == REFUSED:
        raise failure(output["refused"])
    return output


def _packing_environment() -> dict[str, str]:
    """Returns the environment for code that will be archived, so that it writes no bytecode."""
    return environment_without_pythonpath() | {"PYTHONDONTWRITEBYTECODE": "1"}
