"""Packs archives, and reads what is in one.

An archive (`model_store/musiclab-<version>.mar`) is all that a TorchServe worker needs: its own
copy of handlers/, a checkpoint, codec weights, model-config.yaml, and a manifest (`musiclab.json`)
that says what they are. The model code is never imported here: packing runs the archive's copy of
it, so that what is checked is what will serve.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import ArchiveError, CodecFetchError, MusicLabError, PackError
from orchestrator.settings import PROJECT, Settings

MODEL_NAME = "musiclab"
MANIFEST = "musiclab.json"
TORCHSERVE_MANIFEST = "MAR-INF/MANIFEST.json"
HANDLERS = PROJECT / "handlers"
HANDLER_FILE = "musiclab_handler.py"
MODEL_CONFIG = "model-config.yaml"
TUNED_CONFIGS = {"cpu": "model-config.cpu.yaml", "gpu": "model-config.gpu.yaml"}
MANIFEST_KEYS = {"version", "checkpoint", "codec"}
BEST_MODEL = "best_model.pt"
OFFICIAL_CODEC = "encodec_24khz-d7cc33bc.th"
STARTER_FOLDER = "starter"
REFUSED = 2  # exit status of handlers.prepare
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
VERSION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

CodecKind = Literal["official", "starter"]
Device = Literal["cpu", "gpu"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class ArchiveInputs:
    """What goes into an archive beside the code.

    Attributes:
        checkpoint: the checkpoint's file; None for the starter checkpoint.
        codec: the official codec weights' file; None for the starter codec.
        device: the device to insist on; None takes a GPU if there is one.
        precision: what to compute with; "auto" takes bf16 where the device computes it.
    """

    checkpoint: Path | None
    codec: Path | None
    device: Device | None
    precision: Precision = "auto"

    @property
    def tuned_for(self) -> Device:
        """The device whose batch sizes suit: where none is insisted on, that of this machine."""
        return self.device or ("gpu" if shutil.which("nvidia-smi") else "cpu")

    @property
    def config(self) -> str:
        """The archive's model-config.yaml."""
        files = (HANDLERS / MODEL_CONFIG, HANDLERS / TUNED_CONFIGS[self.tuned_for])
        insisted = "" if self.device is None else f"deviceType: {self.device}\n"
        text = "".join(file.read_text() for file in files)
        return f"{text}\nprecision: {self.precision}\n{insisted}"

    def fingerprint(self) -> str:
        """SHA-256 that changes when the code, the weights or the configuration does."""
        parts = [self.config]
        parts += [f"{file} {_sha256(HANDLERS / file)}" for file in sorted(_code_files())]
        parts += [_sha256(file) if file else "starter" for file in (self.checkpoint, self.codec)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def choose_inputs(
    settings: Settings,
    checkpoint: Path | None = None,
    codec: CodecKind | None = None,
    device: Device | None = None,
    precision: Precision = "auto",
) -> ArchiveInputs:
    """Fill in what was not given: one's own weights from checkpoints/, else the starter ones.

    Raises:
        PackError: a file that was asked for is not there.
    """
    own = settings.checkpoints / BEST_MODEL
    official = settings.checkpoints / OFFICIAL_CODEC
    if checkpoint is None and own.exists():
        checkpoint = own
    if checkpoint is not None and not checkpoint.is_file():
        raise PackError(f"there is no checkpoint at {checkpoint}")
    if codec == "official" and not official.is_file():
        raise PackError(
            f"the official codec weights are not at {official}; fetch them with "
            "`musiclab codec fetch`, or pack with --codec starter"
        )
    use_official = codec == "official" or (codec is None and official.exists())
    return ArchiveInputs(checkpoint, official if use_official else None, device, precision)


def fetch_codec(settings: Settings) -> Path:
    """Download and verify the official codec weights; shows a progress bar.

    Raises:
        CodecFetchError: they cannot be reached, or what came is not the official file.
    """
    folder = settings.checkpoints.resolve()
    return Path(_run_model_code(PROJECT, CodecFetchError, "fetch-codec", str(folder))["path"])


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
        PackError: the version is taken or badly formed, or the weights cannot be served.
    """
    created = datetime.now(UTC).replace(microsecond=0)
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
    fingerprint = inputs.fingerprint()
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


def store(settings: Settings, archive: Path) -> Path:
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


def _code_files() -> list[Path]:
    """Relative to HANDLERS."""
    return [file.relative_to(HANDLERS) for file in HANDLERS.rglob("*.py")]


def _starter_folder(checkpoints: Path, scratch: Path) -> Path:
    """Where starter weights are built: beside one's own, unless nothing may be written there."""
    beside = checkpoints / STARTER_FOLDER
    try:
        beside.mkdir(parents=True, exist_ok=True)
    except OSError:
        return scratch / STARTER_FOLDER
    return beside if os.access(beside, os.W_OK) else scratch / STARTER_FOLDER


def _stage(content: Path, inputs: ArchiveInputs, starters: Path, force: bool) -> dict[str, Any]:
    """Lay out the archive's content, and let its own code check and describe the weights."""
    code = content / HANDLERS.name
    for file in _code_files():
        if file.name != HANDLER_FILE:  # which goes to the archive's root
            (code / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HANDLERS / file, code / file)
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
            f"--handler={HANDLERS / HANDLER_FILE}",
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
    """Run `python -m handlers.prepare` with the handlers/ in `root`; returns what it answers.

    Raises:
        failure: it refused, with its sentence, or it crashed.
    """
    process = subprocess.run(
        [sys.executable, "-m", "handlers.prepare", *arguments],
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


def environment_without_pythonpath() -> dict[str, str]:
    """The environment for processes that run an archive's code.

    PYTHONPATH precedes the archive in the search path, so with it every version would run the code
    found there.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _packing_environment() -> dict[str, str]:
    """The same for code that is about to be archived: bytecode has no place in an archive."""
    return environment_without_pythonpath() | {"PYTHONDONTWRITEBYTECODE": "1"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
