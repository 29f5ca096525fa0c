"""Client of TorchServe's management API: lists, loads and unloads model versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import requests

from orchestrator.archives.archive import MODEL_NAME
from orchestrator.errors import ModelServerError
from orchestrator.serving.tokens import Tokens

TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 130.0  # more than unregister_model_timeout in config.properties

# Without a version, TorchServe describes the default one; with "all", it describes every version.
DEFAULT_PATH = f"/models/{MODEL_NAME}"
ALL_PATH = f"{DEFAULT_PATH}/all"

Descriptions = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of the model, as TorchServe describes it.

    Attributes:
        default: whether it handles requests that name no version.
        workers: number of workers, in any state.
        worker_pids: process IDs of the READY workers. Only the process ID distinguishes a worker
            from its replacement: TorchServe reports the same worker ID and start time for both.
        batch_size: maximum number of requests that a worker processes at once.
        pending: requests in TorchServe's queue that no worker has taken yet.
    """

    version: str
    default: bool
    workers: int
    worker_pids: frozenset[int]
    batch_size: int
    pending: int

    @property
    def ready(self) -> int:
        """Number of READY workers."""
        return len(self.worker_pids)

    @classmethod
    def read(cls, default: Descriptions, everything: Descriptions) -> list[Self]:
        """Parses the responses of DEFAULT_PATH and ALL_PATH; returns nothing if either is empty.

        Raises:
            KeyError: the responses do not come from TorchServe.
        """
        if not default:
            return []
        return [
            cls(
                version=model["modelVersion"],
                default=model["modelVersion"] == default[0]["modelVersion"],
                workers=len(model["workers"]),
                worker_pids=frozenset(
                    each["pid"] for each in model["workers"] if each["status"] == "READY"
                ),
                batch_size=model["batchSize"],
                pending=model["jobQueueStatus"]["pendingRequests"],
            )
            for model in everything
        ]


@dataclass(frozen=True)
class ManagementClient:
    """Calls the management API.

    Every method raises ModelServerError if the server returns an error or does not respond.
    """

    tokens: Tokens

    def versions(self) -> list[RegisteredVersion]:
        """Returns all versions; none while TorchServe has no model."""
        default = self._describe(DEFAULT_PATH)
        return RegisteredVersion.read(default, self._describe(ALL_PATH) if default else [])

    def find(self, version: str) -> RegisteredVersion | None:
        """Returns one version; None if it is not registered."""
        return next((each for each in self.versions() if each.version == version), None)

    def register(self, archive: str) -> None:
        """Registers an archive of the model store; returns while its workers are starting.

        Args:
            archive: file name. If it were a URL, TorchServe would delete the file later.
        """
        self._call("POST", "/models", url=archive, initial_workers="1", synchronous="false")

    def set_default(self, version: str) -> None:
        """Makes a version the default, which handles requests that name no version."""
        self._call("PUT", f"{DEFAULT_PATH}/{version}/set-default")

    def unregister(self, version: str) -> None:
        """Stops the workers of a version immediately; requests in progress are lost."""
        self._call("DELETE", f"{DEFAULT_PATH}/{version}")

    def _describe(self, path: str) -> Descriptions:
        response = self._send("GET", path, TIMEOUT_S)
        if response.status_code == requests.codes.not_found:
            return []
        try:
            described: Descriptions = _checked(response).json()
        except requests.JSONDecodeError as error:
            raise ModelServerError(f"the server at {response.url} is not TorchServe") from error
        return described

    def _call(self, method: str, path: str, **parameters: str) -> None:
        _checked(self._send(method, path, CHANGE_TIMEOUT_S, **parameters))

    def _send(
        self, method: str, path: str, timeout_s: float, **parameters: str
    ) -> requests.Response:
        url = self.tokens.management_url
        try:
            return requests.request(
                method,
                url + path,
                params=parameters,
                auth=self.tokens.auth("management"),
                timeout=timeout_s,
            )
        except requests.RequestException as error:
            raise ModelServerError(
                f"TorchServe is unreachable at {url} ({type(error).__name__}); start it with "
                "`musiclab up` or `musiclab serve-model`"
            ) from error


def _checked(response: requests.Response) -> requests.Response:
    if not response.ok:
        try:
            message = response.json()["message"]
        except (ValueError, KeyError):
            message = "no details"
        raise ModelServerError(f"TorchServe returned {response.status_code}: {message}")
    return response
