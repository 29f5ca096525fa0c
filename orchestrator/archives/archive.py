"""Archives in the model store, and what is in one.

An archive (`model_store/musiclab-<version>.mar`) is all that a TorchServe worker needs: its own
copy of handlers/, a checkpoint, codec weights, model-config.yaml, and a manifest (`musiclab.json`)
that says what they are.
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
# What zipfile raises of damaged files, and json of what is in them.
DAMAGE = (
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
    """Where a version's archive is, or would be."""
    return store / f"{MODEL_NAME}-{version}.mar"


def list_archives(store: Path) -> list[Path]:
    """All archives of a model store, the newest first."""
    archives = store.glob(f"{MODEL_NAME}-*.mar")
    return sorted(archives, key=lambda file: file.stat().st_mtime, reverse=True)


def read_manifest(archive: Path) -> dict[str, Any]:
    """The manifest of an archive.

    Raises:
        ArchiveError: there is no such file, or it is not a MusicLab archive.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            manifest: dict[str, Any] = json.loads(file.read(MANIFEST))
    except FileNotFoundError:
        raise ArchiveError(f"there is no archive at {archive}") from None
    except DAMAGE as error:
        raise ArchiveError(
            f"{archive} is not a MusicLab archive ({error}); `musiclab model pack` builds one"
        ) from error
    if not isinstance(manifest, dict) or not manifest.keys() >= MANIFEST_KEYS:
        raise ArchiveError(
            f"{archive} is not a MusicLab archive (its {MANIFEST} lacks what it should say); "
            "`musiclab model pack` builds one"
        )
    return manifest


def verify_archive(archive: Path) -> dict[str, Any]:
    """The manifest of an archive that TorchServe can read to its last byte.

    Raises:
        ArchiveError: as read_manifest, or the file is damaged or not called .mar.
    """
    manifest = read_manifest(archive)
    version = manifest["version"]
    if archive.suffix != ".mar":
        raise ArchiveError(f"{archive} has to be called .mar for TorchServe to read it")
    try:
        with zipfile.ZipFile(archive) as file:
            damaged = file.testzip()
            model = json.loads(file.read(TORCHSERVE_MANIFEST))["model"]
            known, known_version = model["modelName"], model["modelVersion"]
    except DAMAGE as error:
        raise ArchiveError(f"{archive} is damaged ({error}); pack it anew") from error
    if damaged is not None:
        raise ArchiveError(f"{archive} is damaged, at {damaged} in it; pack it anew")
    if (known, known_version) != (MODEL_NAME, version):
        raise ArchiveError(
            f"{archive} is {known} {known_version} for TorchServe, but {MODEL_NAME} {version} by "
            f"its {MANIFEST}; pack it anew"
        )
    return manifest


def import_archive(settings: Settings, archive: Path) -> Path:
    """Copy an archive into the model store, unless it is there; returns where it is.

    Raises:
        ArchiveError: TorchServe could not read it, or its version is another one in the store.
    """
    manifest = verify_archive(archive)
    stored = archive_path(settings.model_store.resolve(), manifest["version"])
    if not stored.exists():
        stored.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copying-", dir=stored.parent) as scratch:
            os.link(shutil.copy(archive, scratch), stored)
    elif read_manifest(stored) != manifest:
        raise ArchiveError(
            f"version {manifest['version']} is another one at {stored}; pack {archive} anew, with "
            "another --version"
        )
    return stored


def environment_without_pythonpath() -> dict[str, str]:
    """The environment for processes that run an archive's code.

    PYTHONPATH precedes the archive in the search path, so with it every version would run the code
    found there.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
