"""TorchServe's management API: which versions of the model are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import requests

from orchestrator.archives.archive import MODEL_NAME
from orchestrator.errors import ModelServerError
from orchestrator.serving.tokens import Tokens

TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 130.0  # a little longer than config.properties lets an unregistration take

# Only without a version does TorchServe describe the default one, and only with "all" the others.
DEFAULT_PATH = f"/models/{MODEL_NAME}"
ALL_PATH = f"{DEFAULT_PATH}/all"

Described = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of the model, as TorchServe describes it.

    Attributes:
        default: whether requests that name no version are answered by it.
        workers: how many it has, in whatever state.
        worker_pids: process ids of the READY workers. They alone tell a worker from the one that
            replaces it: TorchServe describes both with the same id and start time.
        batch_size: requests that a worker takes at once, at most.
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
        """How many of its workers are READY."""
        return len(self.worker_pids)

    @classmethod
    def read(cls, default: Described, everything: Described) -> list[Self]:
        """All versions, by what is at DEFAULT_PATH and ALL_PATH; none while one of them is empty.

        Raises:
            KeyError: what is there does not come from TorchServe.
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

    Every method raises ModelServerError when the server refuses or does not answer.
    """

    tokens: Tokens

    def versions(self) -> list[RegisteredVersion]:
        """All versions; none while TorchServe has no model."""
        default = self._describe(DEFAULT_PATH)
        return RegisteredVersion.read(default, self._describe(ALL_PATH) if default else [])

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
        self._call("PUT", f"{DEFAULT_PATH}/{version}/set-default")

    def unregister(self, version: str) -> None:
        """End a version's workers at once, with what they are working on."""
        self._call("DELETE", f"{DEFAULT_PATH}/{version}")

    def _describe(self, path: str) -> Described:
        response = self._send("GET", path, TIMEOUT_S)
        if response.status_code == requests.codes.not_found:
            return []
        try:
            described: Described = _accepted(response).json()
        except requests.JSONDecodeError as error:
            raise ModelServerError(f"what answers at {response.url} is no TorchServe") from error
        return described

    def _call(self, method: str, path: str, **parameters: str) -> None:
        _accepted(self._send(method, path, CHANGE_TIMEOUT_S, **parameters))

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
                f"TorchServe does not answer at {url} ({type(error).__name__}); start it with "
                "`musiclab up` or `musiclab serve-model`"
            ) from error


def _accepted(response: requests.Response) -> requests.Response:
    if not response.ok:
        try:
            message = response.json()["message"]
        except (ValueError, KeyError):
            message = "nothing else"
        raise ModelServerError(f"TorchServe answered {response.status_code}: {message}")
    return response
