"""Two model versions whose music is distinguishable, and copies of archives with changed files."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from orchestrator.archives.archive import MANIFEST, MODEL_NAME, archive_path
from orchestrator.archives.packing import STARTER_FOLDER, pack
from orchestrator.archives.packing_inputs import BEST_MODEL, ArchiveInputs, choose_inputs
from orchestrator.settings import Settings
from tests.support.model_client import Fields, ModelClient
from tests.support.signals import SEGMENT, Samples, decoded, encoded, noise, si_sdr

FIRST, SECOND = "first", "second"
SAME_DB = 25.0  # rounding differs between a batch of four and a single request
OTHER_DB = 10.0
TRACKS: Fields = {f"track{track}": encoded(noise(SEGMENT, track)) for track in (1, 2)}


def pack_two(settings: Settings) -> None:
    """Pack FIRST from the starter checkpoint, and SECOND from one that produces different music."""
    inputs = choose_inputs(settings)
    pack(settings, inputs, FIRST)
    checkpoint = other_checkpoint(settings)
    pack(settings, ArchiveInputs(checkpoint, inputs.codec, None), SECOND)


def other_checkpoint(settings: Settings) -> Path:
    """The starter checkpoint with a random output bias, so that its music differs."""
    starter = settings.checkpoints / STARTER_FOLDER / BEST_MODEL
    content = torch.load(starter, weights_only=True)
    bias = content["model_state_dict"]["cascade_stages.1.output_proj.bias"]
    bias += torch.randn(bias.shape, generator=torch.Generator().manual_seed(1))
    path = settings.checkpoints / "other.pt"
    torch.save(content, path)
    return path


def generated_by(music: bytes, references: dict[str, Samples]) -> str:
    """The version whose reference the music matches; all are generated from the same tracks."""
    with np.errstate(divide="ignore"):  # identical signals divide by zero
        similarity = {
            version: si_sdr(reference, decoded(music)) for version, reference in references.items()
        }
    same = [version for version, decibels in similarity.items() if decibels >= SAME_DB]
    others = [decibels for decibels in similarity.values() if decibels < OTHER_DB]
    assert len(same) == 1, f"the music matches none or several of the versions: {similarity}"
    assert len(others) == len(similarity) - 1, f"the versions are not distinguishable: {similarity}"
    return same[0]


def register(client: ModelClient, version: str) -> None:
    """Register a version from the model store through the management API."""
    archive = f"{MODEL_NAME}-{version}.mar"
    manage(client, "POST", "/models", url=archive, synchronous="true")


def manage(client: ModelClient, method: str, path: str, **parameters: str) -> None:
    response = client.manage(method, path, **parameters)
    assert response.status_code == 200, f"{method} {path}: {response.text}"


Change = Callable[[str, bytes], bytes | None]


def unchanged(name: str, content: bytes) -> bytes:
    return content


def with_text(file: str, old: str, new: str) -> Change:
    """A change that replaces a text in one file."""

    def change(name: str, content: bytes) -> bytes:
        if name != file:
            return content
        assert old.encode() in content, f"{file} no longer contains {old!r}; adapt the test"
        return content.replace(old.encode(), new.encode())

    return change


def altered(settings: Settings, source: str, version: str, change: Change) -> str:
    """Add a copy of an archive to the model store, with changed files.

    Args:
        settings: settings with the model store.
        source: version of the archive.
        version: version of the copy.
        change: returns a file's new content from its name and old content; None omits the file.
    """
    store = settings.model_store
    with (
        zipfile.ZipFile(archive_path(store, source)) as old,
        zipfile.ZipFile(archive_path(store, version), "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name in ("MAR-INF/MANIFEST.json", MANIFEST):
                for key in ("version", "modelVersion"):
                    old_line, new_line = (f'"{key}": "{each}"' for each in (source, version))
                    content = content.replace(old_line.encode(), new_line.encode())
            changed = change(name, content)
            if changed is not None:
                new.writestr(name, changed)
    return version
