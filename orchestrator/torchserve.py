"""Client of TorchServe's management API."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ManagementClient:
    """Calls the management API with the key that the server wrote when it started.

    Attributes:
        url: address of the management API, without a slash at its end.
        key_file: TorchServe's key_file.json, read anew at each call as each start makes new keys.
    """

    url: str
    key_file: Path

    def describe(self, name: str, version: str) -> dict[str, Any] | None:
        """The description of one version, with its workers; None while it is not registered.

        Raises:
            requests.RequestException: the server is away or answers otherwise.
        """
        response = requests.get(
            f"{self.url}/models/{name}/{version}", headers=self._authorization(), timeout=TIMEOUT_S
        )
        if response.status_code == requests.codes.not_found:
            return None
        response.raise_for_status()
        description: dict[str, Any] = response.json()[0]
        return description

    def _authorization(self) -> dict[str, str]:
        try:
            key = json.loads(self.key_file.read_text())["management"]["key"]
        except (
            FileNotFoundError,
            ValueError,
        ):  # not written yet; the server will say what it wants
            return {}
        return {"Authorization": f"Bearer {key}"}
