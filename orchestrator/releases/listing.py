"""Lists the versions in the model store and the versions that TorchServe has loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.archives.archive import list_archives, read_manifest
from orchestrator.errors import ArchiveError, ModelServerError
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from orchestrator.serving.management import ManagementClient, RegisteredVersion
from orchestrator.serving.tokens import Tokens
from orchestrator.settings import Settings

COLUMNS = ("version", "role", "codec", "checkpoint", "epoch", "packed", "MB")


@dataclass(frozen=True)
class Listing:
    """The table of versions.

    Attributes:
        rows: cells in the order of COLUMNS, the newest archive first.
        remarks: messages about archives that could not be read, or an unreachable TorchServe.
    """

    rows: list[tuple[str, ...]]
    remarks: list[str]


def list_versions(settings: Settings) -> Listing:
    """Lists the versions in the model store and, if it is reachable, in TorchServe.

    Raises:
        ArchiveError: the file of the desired state is invalid.
    """
    state_file = DesiredStateFile(settings)
    loaded: dict[str, RegisteredVersion] = {}
    remarks = []
    try:
        management = ManagementClient(Tokens(settings.key_file, settings.management_url))
        loaded = {each.version: each for each in management.versions()}
    except ModelServerError as error:
        remarks.append(f"{error}.")
    desired = state_file.read()
    rows = []
    for archive in list_archives(state_file.model_store):
        try:
            manifest = read_manifest(archive)
        except ArchiveError as error:
            remarks.append(f"{error}.")
            continue
        version = manifest["version"]
        role = _role(loaded.pop(version, None), version, desired)
        rows.append((version, role, *_manifest_cells(manifest), _megabytes(archive)))
    for version, registered in loaded.items():
        rows.append((version, _role(registered, version, desired), *["-"] * 5))
        remarks.append(f"The archive of {version} is no longer in {state_file.model_store}.")
    return Listing(rows, remarks)


def _role(registered: RegisteredVersion | None, version: str, desired: DesiredState | None) -> str:
    if registered is None:
        return "next start" if desired is not None and version == desired.default else "-"
    role = "default" if registered.default else "additional"
    return role if registered.ready else f"{role}, not ready"


def _manifest_cells(manifest: dict[str, Any]) -> tuple[str, ...]:
    checkpoint = manifest["checkpoint"]
    return (
        manifest["codec"]["kind"],
        "starter" if checkpoint["starter"] else checkpoint["sha256"][:12],
        str(checkpoint.get("epoch") or "-"),
        manifest.get("created_at", "-")[:16].replace("T", " "),
    )


def _megabytes(archive: Path) -> str:
    return f"{archive.stat().st_size / 1e6:.0f}"
