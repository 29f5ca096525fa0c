"""TorchServe's management API: which versions of the model are loaded."""

from dataclasses import dataclass
from typing import Any

import requests

from orchestrator.errors import ModelServerError
from orchestrator.model_keys import Keys
from orchestrator.model_versions import MODEL_NAME

TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 130.0  # a little longer than config.properties lets an unregistration take


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of the model, as TorchServe describes it.

    Attributes:
        ready: how many of its workers are READY.
        pending: requests in TorchServe's queue that no worker has taken yet.
    """

    version: str
    default: bool
    ready: int
    pending: int


@dataclass(frozen=True)
class ManagementClient:
    """Calls the management API.

    Every method raises ModelServerError when the server refuses, and requests.RequestException
    when it does not answer.

    """

    keys: Keys

    def versions(self) -> list[RegisteredVersion]:
        """All versions; none while TorchServe has no model."""
        # Only without a version does TorchServe describe the default one, and only with "all" the
        # others.
        default = self._describe("")
        return [
            RegisteredVersion(
                version=model["modelVersion"],
                default=model["modelVersion"] == default[0]["modelVersion"],
                ready=sum(worker["status"] == "READY" for worker in model["workers"]),
                pending=model["jobQueueStatus"]["pendingRequests"],
            )
            for model in (self._describe("/all") if default else [])
        ]

    def find(self, version: str) -> RegisteredVersion | None:
        """One version; None while it is not registered."""
        return next((each for each in self.versions() if each.version == version), None)

    def register(self, archive: str) -> None:
        """Have an archive of the model store loaded; returns while its workers are starting.

        Args:
            archive: the file's name. Of an address, TorchServe would delete the file later.
        """
        self._call("POST", "/models", url=archive, initial_workers="1", synchronous="false")

    def set_default(self, version: str) -> None:
        """Send requests that name no version to this one."""
        self._call("PUT", f"/models/{MODEL_NAME}/{version}/set-default")

    def unregister(self, version: str) -> None:
        """End a version's workers at once, with what they are working on."""
        self._call("DELETE", f"/models/{MODEL_NAME}/{version}")

    def _describe(self, which: str) -> list[dict[str, Any]]:
        response = self._send("GET", f"/models/{MODEL_NAME}{which}", TIMEOUT_S)
        if response.status_code == requests.codes.not_found:
            return []
        described: list[dict[str, Any]] = _accepted(response).json()
        return described

    def _call(self, method: str, path: str, **parameters: str) -> None:
        _accepted(self._send(method, path, CHANGE_TIMEOUT_S, **parameters))

    def _send(
        self, method: str, path: str, timeout_s: float, **parameters: str
    ) -> requests.Response:
        return requests.request(
            method,
            self.keys.management_url + path,
            params=parameters,
            auth=self.keys.auth("management"),
            timeout=timeout_s,
        )


def _accepted(response: requests.Response) -> requests.Response:
    if not response.ok:
        try:
            said = response.json()["message"]
        except (ValueError, KeyError):
            said = "nothing else"
        raise ModelServerError(f"TorchServe answered {response.status_code}: {said}")
    return response
