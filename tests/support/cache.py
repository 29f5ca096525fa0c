"""What a cache folder holds."""

from pathlib import Path

from orchestrator.storage.base import MARKER


def entries(cache: Path) -> list[str]:
    """The names in it but the marker's; none where there is no such folder."""
    return sorted(path.name for path in cache.glob("*") if path.name != MARKER)
