"""Two versions of the model that can be told apart by ear, and archives that are broken."""

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
SAME_DB = 25.0  # a batch of four is rounded otherwise than a lone request
OTHER_DB = 10.0
TRACKS: Fields = {f"track{track}": encoded(noise(SEGMENT, track)) for track in (1, 2)}


def pack_two(settings: Settings) -> None:
    """Pack FIRST of the starter checkpoint, and SECOND of one that makes other music."""
    inputs = choose_inputs(settings)
    pack(settings, inputs, FIRST)
    checkpoint = other_checkpoint(settings)
    pack(settings, ArchiveInputs(checkpoint, inputs.codec, None), SECOND)


def other_checkpoint(settings: Settings) -> Path:
    """The starter checkpoint, but what it makes is moved away from what it hears."""
    starter = settings.checkpoints / STARTER_FOLDER / BEST_MODEL
    content = torch.load(starter, weights_only=True)
    bias = content["model_state_dict"]["cascade_stages.1.output_proj.bias"]
    bias += torch.randn(bias.shape, generator=torch.Generator().manual_seed(1))
    path = settings.checkpoints / "other.pt"
    torch.save(content, path)
    return path


def made_by(music: bytes, references: dict[str, Samples]) -> str:
    """The version whose reference this music is; all were made of the same tracks."""
    with np.errstate(divide="ignore"):  # as it is where both are the same to the last bit
        likeness = {
            version: si_sdr(reference, decoded(music)) for version, reference in references.items()
        }
    same = [version for version, decibels in likeness.items() if decibels >= SAME_DB]
    others = [decibels for decibels in likeness.values() if decibels < OTHER_DB]
    assert len(same) == 1, f"it is like none of the versions, or several: {likeness}"
    assert len(others) == len(likeness) - 1, f"the versions sound alike: {likeness}"
    return same[0]


def register(client: ModelClient, version: str) -> None:
    """Have a version of the store loaded, as by curl."""
    archive = f"{MODEL_NAME}-{version}.mar"
    manage(client, "POST", "/models", url=archive, synchronous="true")


def manage(client: ModelClient, method: str, path: str, **parameters: str) -> None:
    answer = client.manage(method, path, **parameters)
    assert answer.status_code == 200, f"{method} {path}: {answer.text}"


Change = Callable[[str, bytes], bytes | None]


def unchanged(name: str, content: bytes) -> bytes:
    return content


def with_text(file: str, old: str, new: str) -> Change:
    """The change of a text in one file."""

    def change(name: str, content: bytes) -> bytes:
        if name != file:
            return content
        assert old.encode() in content, f"{file} no longer holds {old!r}; adapt the test"
        return content.replace(old.encode(), new.encode())

    return change


def altered(settings: Settings, source: str, version: str, change: Change) -> str:
    """Put a copy of an archive into the store, with other files in it.

    Args:
        settings: where the store is.
        source: version of the archive.
        version: of the copy.
        change: a file's new content by its name and old content; None leaves the file out.
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
