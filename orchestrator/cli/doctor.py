"""Checks whether this machine meets the requirements of MusicLab."""

import asyncio
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.archives.model_packages import (
    MODEL_PACKAGES,
    how_to_install,
    missing_packages,
)
from orchestrator.archives.packing_inputs import BEST_MODEL, OFFICIAL_CODEC
from orchestrator.audio.ffmpeg import find_ffmpeg
from orchestrator.database.engine import Database
from orchestrator.errors import MusicLabError
from orchestrator.paths import PATHS
from orchestrator.serving.java import find_java
from orchestrator.settings import Settings
from orchestrator.storage import open_storage

MIN_FREE_GB = 2
DATABASE_TIMEOUT_S = 3.0

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        state: "ok"; "note" if MusicLab runs regardless; "missing" if it cannot run.
        text: the value found, or how to fix it.
    """

    state: State
    name: str
    text: str


def diagnose(settings: Settings) -> list[Finding]:
    """Runs all checks."""
    return [
        Finding("ok", "Python", f"{platform.python_version()} at {sys.executable}"),
        *_model_server(),
        _program("ffmpeg", find_ffmpeg),
        _checkpoint(settings),
        _codec(settings),
        _database(settings),
        _files(settings),
        _disk(settings),
        _frontend(settings),
    ]


def _model_server() -> list[Finding]:
    """Checks the packages for the model server; optional on machines without one."""
    missing = missing_packages()
    if len(missing) == len(MODEL_PACKAGES):
        without = "not installed; `musiclab orchestrator` runs without it"
        return [Finding("note", "model", f"{without}. To serve the model here, {how_to_install()}")]
    packages = [
        Finding("missing", name, f"not installed in this environment; {how_to_install()}")
        if name in missing
        else Finding("ok", name, "installed")
        for name in MODEL_PACKAGES
    ]
    return [*packages, _device(), _program("Java", find_java)]


def _device() -> Finding:
    """Checks which device torch can use; in a subprocess, as importing torch takes seconds."""
    script = "import torch; print(torch.cuda.is_available() and torch.cuda.get_device_name())"
    probe = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if probe.returncode != 0:
        last = (probe.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("missing", "device", f"torch cannot be imported: {last}")
    gpu = probe.stdout.strip()
    if gpu != "False":
        return Finding("ok", "device", gpu)
    if shutil.which("nvidia-smi"):
        return Finding("note", "device", "this build of torch cannot use the NVIDIA GPU")
    return Finding("ok", "device", "CPU; torch finds no GPU")


def _program(name: str, find: Callable[[], Path]) -> Finding:
    try:
        return Finding("ok", name, str(find()))
    except MusicLabError as error:
        return Finding("missing", name, str(error))


def _checkpoint(settings: Settings) -> Finding:
    path = settings.checkpoints / BEST_MODEL
    if path.exists():
        return Finding("ok", "checkpoint", str(path))
    return Finding("note", "checkpoint", f"none at {path}; the starter checkpoint is used")


def _codec(settings: Settings) -> Finding:
    path = settings.checkpoints / OFFICIAL_CODEC
    if path.exists():
        return Finding("ok", "codec", str(path))
    return Finding(
        "note",
        "codec",
        "the starter codec is used; `musiclab codec fetch` downloads the official weights",
    )


def _database(settings: Settings) -> Finding:
    if not settings.database_url:
        return Finding("ok", "database", str(settings.database_file))

    async def connect() -> None:
        database = Database(settings.database_url, settings.database_file)
        try:
            await database.ping(DATABASE_TIMEOUT_S)
        finally:
            await database.close()

    try:
        asyncio.run(connect())
    except MusicLabError as error:
        return Finding("missing", "database", str(error))
    return Finding("ok", "database", "MUSICLAB_DATABASE_URL is reachable")


def _files(settings: Settings) -> Finding:
    where = settings.files_url or str(settings.cache.resolve())
    try:
        files = open_storage(settings.files_url, settings.cache.resolve(), settings.scratch_dir)
        asyncio.run(files.job_ids())
    except MusicLabError as error:
        return Finding("missing", "files", str(error))
    return Finding("ok", "files", where)


def _disk(settings: Settings) -> Finding:
    folder = settings.cache.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < MIN_FREE_GB:
        return Finding("note", "disk", f"only {free:.1f} GB free at {folder}")
    return Finding("ok", "disk", f"{free:.0f} GB free at {folder}")


def _frontend(settings: Settings) -> Finding:
    index = settings.page_index
    if index.is_file():
        return Finding("ok", "page", str(settings.page))
    built = "; `make setup` builds it" if PATHS.is_checkout else ""
    return Finding("note", "page", f"none at {index}; the API runs without it{built}")
