"""A real Prometheus server, and promtool to check rule files and metrics."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.support.debian import fetch_directory
from tests.support.ports import free_ports
from tests.support.project import PROJECT

DEPLOY = PROJECT / "deploy"
READY_WITHIN_S = 30
STOPPED_WITHIN_S = 30
TIMEOUT_S = 30
INTERVAL_S = 1


def find_program(name: str) -> Path:
    """The program prometheus or promtool: from PATH, or else from the Debian package."""
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path)
    alternative = f"install Prometheus, with {name}"
    return fetch_directory("prometheus", "usr/bin", "prometheus", alternative) / name


def promtool(*arguments: str | Path, text: str | None = None) -> None:
    """Run promtool with a text on standard input; fails if promtool reports a problem."""
    done = subprocess.run(
        [find_program("promtool"), *arguments], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, f"promtool {arguments[:2]}:\n{done.stdout}{done.stderr}"


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus server that scrapes every second."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The current samples of an expression."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def series(self, selector: str) -> list[dict[str, str]]:
        """The labels of all matching series."""
        found: list[dict[str, str]] = self.get("series", **{"match[]": selector})
        return found

    def get(self, endpoint: str, **parameters: str) -> Any:
        address = f"{self.url}/api/v1/{endpoint}"
        response = requests.get(address, params=parameters, timeout=TIMEOUT_S)
        assert response.status_code == 200, f"{endpoint} {parameters}: {response.text}"
        return response.json()["data"]

    def wait_for_scrapes(self, count: int) -> None:
        """Wait for `count` further scrapes of each target, after which all must be up."""
        for _ in range(count):
            began = time.time()
            deadline = began + READY_WITHIN_S
            while self.query(f"min(timestamp(up)) > {began}") == []:
                faults = {each["scrapeUrl"]: each["lastError"] for each in self._targets()}
                assert time.time() < deadline, f"not scraped; {json.dumps(faults)}"
                time.sleep(0.1)
        down = self.query("up == 0")
        assert down == [], f"cannot be scraped: {down}"

    def _targets(self) -> list[dict[str, Any]]:
        targets: list[dict[str, Any]] = self.get("targets")["activeTargets"]
        return targets


@contextmanager
def prometheus_server(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """A Prometheus server with the configuration in deploy/.

    Args:
        folder: an empty directory for this server.
        targets: an address for each job in the configuration.
    """
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": f"{INTERVAL_S}s",
        "evaluation_interval": f"{INTERVAL_S}s",
    }
    assert {job["job_name"] for job in config["scrape_configs"]} == targets.keys()
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                find_program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + READY_WITHIN_S
        while not _ready(server.url):
            assert process.poll() is None, f"Prometheus exited:\n{log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"Prometheus is not ready; its log is {log}"
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(STOPPED_WITHIN_S)


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=TIMEOUT_S).ok
    except requests.ConnectionError:
        return False
