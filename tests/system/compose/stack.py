"""MusicLab in containers, as its users and operators meet it."""

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

Answer = TypeVar("Answer")


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
        """Run the health checks until all pass, as an engine with systemd does by itself."""
        for service in services or SERVICES:
            eventually(partial(self._is_healthy, service), HEALTHY_WITHIN_S, service)

    def _is_healthy(self, service: str) -> bool:
        self.podman("healthcheck", "run", self.podman.name(service))
        return True

    def submit(self, tracks: dict[str, bytes]) -> str:
        """A new job's id."""
        files = {name: (f"{name}.flac", content) for name, content in tracks.items()}
        answer = requests.post(f"{self.api}/api/generate", files=files, timeout=TIMEOUT_S)
        assert answer.status_code == 202, f"not accepted: {answer.status_code} {answer.text}"
        job_id: str = answer.json()["job_id"]
        return job_id

    def status(self, job_id: str) -> dict[str, Any]:
        answer = requests.get(f"{self.api}/api/status/{job_id}", timeout=TIMEOUT_S)
        assert answer.ok, f"status of {job_id}: {answer.status_code} {answer.text}"
        document: dict[str, Any] = answer.json()
        return document

    def completed(self, job_id: str) -> dict[str, Any]:
        """The status of a job that is completed, waited for."""

        def look() -> dict[str, Any] | None:
            document = self.status(job_id)
            assert document["status"] != "failed", f"the job failed: {document['message']}"
            return document if document["status"] == "completed" else None

        return eventually(look, DONE_WITHIN_S, f"the job {job_id}")

    def music(self, job_id: str) -> bytes:
        answer = requests.get(f"{self.api}/api/download/{job_id}", timeout=TIMEOUT_S)
        assert answer.ok, f"download of {job_id}: {answer.status_code} {answer.text}"
        return answer.content

    def ask_prometheus(self, query: str) -> list[dict[str, Any]]:
        """The results of a query, asked inside its network."""
        curl = ("curl", "-fsS", "--get", "--data-urlencode", f"query={query}")
        said = self.podman.execute("prometheus", *curl, "http://127.0.0.1:9090/api/v1/query")
        found: list[dict[str, Any]] = json.loads(said)["data"]["result"]
        return found

    def published(self) -> dict[str, set[str]]:
        """The ports that services publish on this machine."""
        found = {}
        for service in SERVICES:
            bindings = self.podman.inspect(service)["HostConfig"]["PortBindings"]
            if ports := {port for port, places in bindings.items() if places}:
                found[service] = ports
        return found

    def users(self, service: str) -> set[str]:
        """Whose the processes in a service's container are."""
        return set(self.podman("top", self.podman.name(service), "user").split()[1:])

    def logs(self) -> str:
        """The last lines that each container said."""
        said = []
        for service in SERVICES:
            try:
                lines = self.podman.logs(service)
            except CommandError as error:
                lines = str(error)
            said.append(f"--- {service}\n{lines}")
        return "\n".join(said)


def eventually(
    attempt: Callable[[], Answer | None], within_s: float, what: str, every_s: float = 1.0
) -> Answer:
    """What an attempt gives once it gives something; until then it may fail as it likes.

    Raises:
        AssertionError: an attempt says that there is no hope, or it takes too long.
    """
    deadline = time.monotonic() + within_s
    while True:
        fault = "nothing yet"
        try:
            if answer := attempt():
                return answer
        except (CommandError, requests.RequestException) as error:
            fault = str(error)
        assert time.monotonic() < deadline, f"{what}: not after {within_s:g} s: {fault}"
        time.sleep(every_s)
