"""Packs archives.

The model code is never imported here: packing runs the archive's copy of it, so that what is
checked is what will serve.
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
    """Download and verify the official codec weights; shows a progress bar.

    Raises:
        ModelPackagesMissingError: the packages of the model are not installed.
        CodecFetchError: they cannot be reached, or what came is not the official file.
    """
    folder = settings.checkpoints.resolve()
    answer = _run_model_code(
        packing_inputs.HANDLERS.parent, CodecFetchError, "fetch-codec", str(folder)
    )
    return Path(answer["path"])


def pack(
    settings: Settings,
    inputs: ArchiveInputs,
    version: str | None = None,
    force: bool = False,
) -> Path:
    """Check the ingredients and build an archive in the model store.

    Args:
        settings: where the model store is.
        inputs: what to pack beside the code.
        version: a name not yet in the store; by default the time and a random part.
        force: allow a trained checkpoint with the starter codec.

    Raises:
        ModelPackagesMissingError: what the model runs on is not installed.
        PackError: the version is taken or badly formed, or the weights cannot be served.
    """
    created, fingerprint = datetime.now(UTC).replace(microsecond=0), inputs.fingerprint()
    if version is None:
        version = f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    if not VERSION_PATTERN.fullmatch(version):
        raise PackError(
            f"--version is {version!r}; it has to be 1 to 64 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    archive = archive_path(settings.model_store.resolve(), version)
    if archive.exists():
        raise PackError(f"version {version} is already at {archive}; choose another --version")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=archive.parent) as scratch:
        content = Path(scratch, "content")
        starters = _starter_folder(settings.checkpoints.resolve(), Path(scratch))
        facts = _stage(content, inputs, starters, force)
        manifest = {
            "model": MODEL_NAME,
            "version": version,
            "created_at": created.isoformat(),
            "device": inputs.device or "gpu if there is one, else cpu",
            "precision": inputs.precision,
            "fingerprint": fingerprint,
            **facts,
        }
        (content / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        built = _archive(Path(scratch), content, version)
        try:
            os.link(built, archive)  # unlike a rename, never replaces what is there
        except FileExistsError:
            raise PackError(f"version {version} was packed by another process just now") from None
    return archive


def find_packed(settings: Settings, inputs: ArchiveInputs) -> Path | None:
    """The newest archive in the store that was built of just these ingredients and this code."""
    wanted = inputs.fingerprint()
    for archive in list_archives(settings.model_store.resolve()):
        try:
            if read_manifest(archive).get("fingerprint") == wanted:
                return archive
        except ArchiveError:
            continue
    return None


def _starter_folder(checkpoints: Path, scratch: Path) -> Path:
    """Where starter weights are built: in checkpoints/, unless that is read-only."""
    folder = checkpoints / STARTER_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return scratch / STARTER_FOLDER
    return folder if os.access(folder, os.W_OK) else scratch / STARTER_FOLDER


def _stage(content: Path, inputs: ArchiveInputs, starters: Path, force: bool) -> dict[str, Any]:
    """Lay out the archive's content, and let its own code check and describe the weights."""
    code = content / packing_inputs.HANDLERS.name
    for file in code_files():
        if file.name != HANDLER_FILE:  # which goes to the archive's root
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
    """Run torch-model-archiver; returns the .mar file in `scratch`."""
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
            "--archive-format=zip-store",  # weights do not shrink, and stored ones load faster
        ],
        # The archiver assembles in a folder of its temporary folder named like the model: two
        # packings at once would write into each other's.
        env=_packing_environment() | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise PackError(f"torch-model-archiver failed: {result.stderr.strip()}")
    return scratch / f"{MODEL_NAME}.mar"


def _run_model_code(root: Path, failure: type[MusicLabError], *arguments: str) -> dict[str, Any]:
    """Run `python -m handlers.prepare_archive` with the handlers/ in `root`; returns its answer.

    Raises:
        ModelPackagesMissingError: the packages of the model are not installed.
        failure: it refused, with its sentence, or it crashed.
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
        raise failure(f"the model code failed ({arguments[0]}); its error is above")
    answer: dict[str, Any] = json.loads(process.stdout)
    if process.returncode == REFUSED:
        raise failure(answer["refused"])
    return answer


def _packing_environment() -> dict[str, str]:
    """The environment for code that is about to be archived, which must get no bytecode."""
    return environment_without_pythonpath() | {"PYTHONDONTWRITEBYTECODE": "1"}
