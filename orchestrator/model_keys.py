"""The keys that TorchServe asks for."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Keys:
    """The keys in TorchServe's key_file.json; read at each use, as each start makes new ones."""

    file: Path

    def header(self, kind: str) -> dict[str, str]:
        """The authorization header; none while the file is not written."""
        try:
            key = json.loads(self.file.read_text())[kind]["key"]
        except (FileNotFoundError, ValueError):
            return {}
        return {"Authorization": f"Bearer {key}"}
