"""TorchServe's management API: which versions of the model are loaded."""

from dataclasses import dataclass
from typing import Any

import requests

from orchestrator.model_keys import Keys

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ManagementClient:
    """Calls the management API.

    Attributes:
        url: its address, without a slash at its end.
    """

    url: str
    keys: Keys

    def describe(self, name: str, version: str) -> dict[str, Any] | None:
        """The description of one version, with its workers; None while it is not registered.

        Raises:
            requests.RequestException: the server is away or answers otherwise.
        """
        response = requests.get(
            f"{self.url}/models/{name}/{version}",
            auth=self.keys.auth("management"),
            timeout=TIMEOUT_S,
        )
        if response.status_code == requests.codes.not_found:
            return None
        response.raise_for_status()
        description: dict[str, Any] = response.json()[0]
        return description
