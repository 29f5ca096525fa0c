"""The contents of a cache directory."""

from pathlib import Path

from orchestrator.storage.base import MARKER


def entries(cache: Path) -> list[str]:
    """Names in the directory, without the marker; empty if the directory does not exist."""
    return sorted(path.name for path in cache.glob("*") if path.name != MARKER)
