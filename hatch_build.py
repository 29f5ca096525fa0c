"""Puts the files that MusicLab needs at run time into the wheel, beside its modules."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# By their places in the repository; orchestrator/paths.py knows their places in the wheel.
BUNDLE = {
    "handlers": "handlers",
    "config.properties": "config.properties",
    "log4j2.xml": "log4j2.xml",
    "metrics.yaml": "metrics.yaml",
    "frontend/dist": "page",
}


class BundleHook(BuildHookInterface[Any]):
    """Adds them to wheels, but not to editable installations, which read the repository's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        if not Path(self.root, "frontend", "dist", "index.html").is_file():
            raise FileNotFoundError("the page is not built; `make wheel` builds it and the wheel")
        build_data["force_include"] |= {
            source: f"orchestrator/bundle/{target}" for source, target in BUNDLE.items()
        }
