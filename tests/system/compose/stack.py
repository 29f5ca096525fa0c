"""Access to MusicLab in containers, through its published ports and podman."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import requests

from tests.system.compose.podman import CommandError, Podman

SERVICES = ("nginx", "orchestrator", "torchserve", "prometheus")
HEALTHY_WITHIN_S = 300
DONE_WITHIN_S = 300
TIMEOUT_S = 60

Result = TypeVar("Result")


@dataclass(frozen=True)
class Stack:
    """The services of the compose file.

    Attributes:
        api: address of the API.
        page: address of the page.
    """

    podman: Podman
    api: str
    page: str

    def wait_healthy(self, *services: str) -> None:
        """Run the health checks until all pass; with systemd, the engine would run them."""
        for service in services or SERVICES:
            eventually(partial(self._is_healthy, service), HEALTHY_WITHIN_S, service)

    def _is_healthy(self, service: str) -> bool:
        self.podman("healthcheck", "run", self.podman.name(service))
        return True

    def submit(self, tracks: dict[str, bytes]) -> str:
        """Submit a job and return its id."""
        files = {name: (f"{name}.flac", content) for name, content in tracks.items()}
        response = requests.post(f"{self.api}/api/generate", files=files, timeout=TIMEOUT_S)
        assert response.status_code == 202, f"not accepted: {response.status_code} {response.text}"
        job_id: str = response.json()["job_id"]
        return job_id

    def status(self, job_id: str) -> dict[str, Any]:
        response = requests.get(f"{self.api}/api/status/{job_id}", timeout=TIMEOUT_S)
        assert response.ok, f"status of {job_id}: {response.status_code} {response.text}"
        document: dict[str, Any] = response.json()
        return document

    def completed(self, job_id: str) -> dict[str, Any]:
        """Wait until a job is completed, and return its status."""

        def completed_status() -> dict[str, Any] | None:
            document = self.status(job_id)
            assert document["status"] != "failed", f"the job failed: {document['message']}"
            return document if document["status"] == "completed" else None

        return eventually(completed_status, DONE_WITHIN_S, f"completion of job {job_id}")

    def music(self, job_id: str) -> bytes:
        response = requests.get(f"{self.api}/api/download/{job_id}", timeout=TIMEOUT_S)
        assert response.ok, f"download of {job_id}: {response.status_code} {response.text}"
        return response.content

    def query_prometheus(self, query: str) -> list[dict[str, Any]]:
        """The results of a query, sent from inside the Prometheus container."""
        curl = ("curl", "-fsS", "--get", "--data-urlencode", f"query={query}")
        output = self.podman.execute("prometheus", *curl, "http://127.0.0.1:9090/api/v1/query")
        found: list[dict[str, Any]] = json.loads(output)["data"]["result"]
        return found

    def published(self) -> dict[str, set[str]]:
        """The ports that services publish on this machine."""
        found = {}
        for service in SERVICES:
            bindings = self.podman.inspect(service)["HostConfig"]["PortBindings"]
            if ports := {port for port, addresses in bindings.items() if addresses}:
                found[service] = ports
        return found

    def users(self, service: str) -> set[str]:
        """The users of the processes in a service's container."""
        return set(self.podman("top", self.podman.name(service), "user").split()[1:])

    def logs(self) -> str:
        """The last log lines of each container."""
        sections = []
        for service in SERVICES:
            try:
                lines = self.podman.logs(service)
            except CommandError as error:
                lines = str(error)
            sections.append(f"--- {service}\n{lines}")
        return "\n".join(sections)


def eventually(
    attempt: Callable[[], Result | None], within_s: float, goal: str, every_s: float = 1.0
) -> Result:
    """Repeat an attempt until it returns a true value, and return that value.

    Failed commands and requests are retried.

    Raises:
        AssertionError: raised by an attempt, or no attempt succeeded within `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        reason = "not yet"
        try:
            if result := attempt():
                return result
        except (CommandError, requests.RequestException) as error:
            reason = str(error)
        assert time.monotonic() < deadline, f"{goal}: not within {within_s:g} s: {reason}"
        time.sleep(every_s)
