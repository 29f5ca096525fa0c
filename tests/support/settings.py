"""Settings with directories and ports that no other test uses."""

from pathlib import Path
from typing import Any

from orchestrator.settings import Settings
from tests.support.ports import free_ports

PORTS = [name for name in Settings.model_fields if name.endswith("_port")]


def settings_in(folder: Path) -> Settings:
    """Settings with every directory inside `folder` and every port free.

    Uploads are accepted regardless of free disk space.
    """
    chosen: dict[str, Any] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    chosen["min_free_disk_percent"] = 0
    chosen |= {name: folder / name for name in ("checkpoints", "model_store", "cache")}
    chosen["run_dir"] = folder / "run"  # short, as UNIX socket paths are limited in length
    return Settings(**chosen)


def with_store_of(starter: Settings, settings: Settings) -> Settings:
    """A copy of `settings` with the checkpoints and the model store of `starter`."""
    folders = {name: getattr(starter, name) for name in ("checkpoints", "model_store")}
    return settings.model_copy(update=folders)
