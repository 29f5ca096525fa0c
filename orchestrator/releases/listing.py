"""The versions in the model store, and what TorchServe does with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.archives.archive import list_archives, read_manifest
from orchestrator.errors import ArchiveError, ModelServerError
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from orchestrator.serving.management import ManagementClient, RegisteredVersion
from orchestrator.serving.tokens import Tokens
from orchestrator.settings import Settings

COLUMNS = ("version", "serves", "codec", "checkpoint", "epoch", "packed", "MB")


@dataclass(frozen=True)
class Listing:
    """Rows of COLUMNS, the newest archive first, and what else there is to say."""

    rows: list[tuple[str, ...]]
    remarks: list[str]


def list_versions(settings: Settings) -> Listing:
    """Look at the store and, if it answers, at TorchServe."""
    store = DesiredStateFile(settings)
    loaded: dict[str, RegisteredVersion] = {}
    remarks = []
    try:
        management = ManagementClient(Tokens(settings.key_file, settings.management_url))
        loaded = {each.version: each for each in management.versions()}
    except ModelServerError as error:
        remarks.append(f"{error}.")
    wanted = store.read()
    rows = []
    for archive in list_archives(store.store):
        try:
            manifest = read_manifest(archive)
        except ArchiveError as error:
            remarks.append(f"{error}.")
            continue
        version = manifest["version"]
        serves = _role(loaded.pop(version, None), version, wanted)
        rows.append((version, serves, *_facts(manifest), _megabytes(archive)))
    for version, registered in loaded.items():
        rows.append((version, _role(registered, version, wanted), *["-"] * 5))
        remarks.append(f"The archive of {version} is no longer in {store.store}.")
    return Listing(rows, remarks)


def _role(registered: RegisteredVersion | None, version: str, wanted: DesiredState | None) -> str:
    if registered is None:
        return "next time" if wanted is not None and version == wanted.default else "-"
    role = "default" if registered.default else "beside"
    return role if registered.ready else f"{role}, not ready"


def _facts(manifest: dict[str, Any]) -> tuple[str, ...]:
    checkpoint = manifest["checkpoint"]
    return (
        manifest["codec"]["kind"],
        "starter" if checkpoint["starter"] else checkpoint["sha256"][:12],
        str(checkpoint.get("epoch") or "-"),
        manifest.get("created_at", "-")[:16].replace("T", " "),
    )


def _megabytes(archive: Path) -> str:
    return f"{archive.stat().st_size / 1e6:.0f}"
