"""Adds the files that MusicLab needs at run time to the wheel."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Path in the repository: path in the bundle. orchestrator/paths.py refers to the latter.
BUNDLE = {
    "handlers": "handlers",
    "config.properties": "config.properties",
    "log4j2.xml": "log4j2.xml",
    "metrics.yaml": "metrics.yaml",
    "frontend/dist": "page",
}


class BundleHook(BuildHookInterface[Any]):
    """Adds the bundle to wheels, but not to editable installations, which use the repository."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        if not Path(self.root, "frontend", "dist", "index.html").is_file():
            raise FileNotFoundError("the page is not built; run `make wheel`")
        build_data["force_include"] |= {
            source: f"orchestrator/bundle/{target}" for source, target in BUNDLE.items()
        }
