"""Reads and verifies the archives in the model store.

An archive (`model_store/musiclab-<version>.mar`) contains all files that a TorchServe worker needs:
its own copy of handlers/, a checkpoint, codec weights, model-config.yaml, and a manifest
(`musiclab.json`) that describes them.
"""

import json
import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from orchestrator.errors import ArchiveError
from orchestrator.settings import Settings

MODEL_NAME = "musiclab"
MANIFEST = "musiclab.json"
TORCHSERVE_MANIFEST = "MAR-INF/MANIFEST.json"
MANIFEST_KEYS = {"version", "checkpoint", "codec"}
# Exceptions that zipfile raises for damaged files, and json for their content.
DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def archive_path(store: Path, version: str) -> Path:
    """Returns the path of a version's archive, which need not exist."""
    return store / f"{MODEL_NAME}-{version}.mar"


def list_archives(store: Path) -> list[Path]:
    """Returns all archives of a model store, the newest first."""
    archives = store.glob(f"{MODEL_NAME}-*.mar")
    return sorted(archives, key=lambda file: file.stat().st_mtime, reverse=True)


def read_manifest(archive: Path) -> dict[str, Any]:
    """Returns the manifest of an archive.

    Raises:
        ArchiveError: the file does not exist, or is not a MusicLab archive.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            manifest: dict[str, Any] = json.loads(file.read(MANIFEST))
    except FileNotFoundError:
        raise ArchiveError(f"there is no archive at {archive}") from None
    except DAMAGE_ERRORS as error:
        raise ArchiveError(
            f"{archive} is not a MusicLab archive ({error}); `musiclab model pack` builds one"
        ) from error
    if not isinstance(manifest, dict) or not manifest.keys() >= MANIFEST_KEYS:
        raise ArchiveError(
            f"{archive} is not a MusicLab archive (its {MANIFEST} lacks required keys); "
            "`musiclab model pack` builds one"
        )
    return manifest


def verify_archive(archive: Path) -> dict[str, Any]:
    """Checks that TorchServe can read the whole archive; returns its manifest.

    Raises:
        ArchiveError: as `read_manifest`, or the file is damaged or lacks the extension .mar.
    """
    manifest = read_manifest(archive)
    version = manifest["version"]
    if archive.suffix != ".mar":
        raise ArchiveError(f"{archive} must have the extension .mar for TorchServe to read it")
    try:
        with zipfile.ZipFile(archive) as file:
            damaged = file.testzip()
            model = json.loads(file.read(TORCHSERVE_MANIFEST))["model"]
            known, known_version = model["modelName"], model["modelVersion"]
    except DAMAGE_ERRORS as error:
        raise ArchiveError(f"{archive} is damaged ({error}); pack it again") from error
    if damaged is not None:
        raise ArchiveError(f"{archive} is damaged ({damaged} is corrupt); pack it again")
    if (known, known_version) != (MODEL_NAME, version):
        raise ArchiveError(
            f"{archive} is {known} {known_version} according to {TORCHSERVE_MANIFEST}, but "
            f"{MODEL_NAME} {version} according to {MANIFEST}; pack it again"
        )
    return manifest


def import_archive(settings: Settings, archive: Path) -> Path:
    """Copies an archive into the model store if it is not there yet; returns its path.

    Raises:
        ArchiveError: TorchServe could not read the archive, or the store has a different archive
            of the same version.
    """
    manifest = verify_archive(archive)
    stored = archive_path(settings.model_store.resolve(), manifest["version"])
    if not stored.exists():
        stored.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copying-", dir=stored.parent) as scratch:
            os.link(shutil.copy(archive, scratch), stored)
    elif read_manifest(stored) != manifest:
        raise ArchiveError(
            f"a different archive of version {manifest['version']} is already stored at {stored}; "
            f"pack {archive} again with another --version"
        )
    return stored


def environment_without_pythonpath() -> dict[str, str]:
    """Returns the environment for processes that run an archive's code.

    PYTHONPATH precedes the archive in the import path, so every version would run the code found
    there.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
