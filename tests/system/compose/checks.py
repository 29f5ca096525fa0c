"""Checks of MusicLab in containers; each is a step of the run."""

import hashlib
import html
import json
import os
import re
import signal
import time
from itertools import product

import requests

from orchestrator.api.routes.frontend import HEADERS, IMMUTABLE, POLICY
from tests.support import model_weights
from tests.support.signals import RATE, SEGMENT, decoded, encoded, noise
from tests.system.compose.podman import CommandError
from tests.system.compose.stack import DONE_WITHIN_S, SERVICES, TIMEOUT_S, Stack, eventually

NEW_VERSION = "swapped"
NEW_CHECKPOINT = "swapped.pt"
TOO_LARGE = 102 * 2**20
SCRAPED_WITHIN_S = 90
RATE_LIMIT = 10

TRACKS = {f"track{number}": encoded(noise(17 * RATE, number), "FLAC") for number in (1, 2)}


def only_two_ports_are_published(stack: Stack) -> None:
    found = stack.published()
    assert found == {"nginx": {"3000/tcp", "8001/tcp"}}, f"published ports: {found}"


def no_process_runs_as_root(stack: Stack) -> None:
    for service in SERVICES:
        users = stack.users(service)
        assert users == {"musiclab"}, f"{service} runs processes as {users}"


def images_contain_only_their_dependencies(stack: Stack) -> None:
    for service, package in (("orchestrator", "torch"), ("torchserve", "handlers")):
        try:
            stack.podman.execute(service, "python", "-Pc", f"import {package}")
        except CommandError as error:
            assert "ModuleNotFoundError" in str(error), error
        else:
            raise AssertionError(f"{package} can be imported in {service}")
    try:
        stack.podman.execute("orchestrator", "java", "-version")
    except CommandError:
        pass
    else:
        raise AssertionError("the orchestrator image contains Java")


def metrics_and_in_flight_are_not_exposed(stack: Stack) -> None:
    for server, path in product((stack.api, stack.page), ("/metrics", "/in-flight")):
        address = server + path
        response = requests.get(address, timeout=TIMEOUT_S)
        assert response.status_code == 404, f"{address}: {response.status_code}"


def page_is_served(stack: Stack) -> None:
    page = requests.get(stack.page, timeout=TIMEOUT_S)
    assert page.ok and "<title>MusicLab</title>" in page.text, page.text[:200]
    (stated,) = POLICY.findall(page.text)
    policy = f"{html.unescape(stated)}; frame-ancestors 'none'"
    expected = HEADERS | {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    assert {name: page.headers.get(name) for name in expected} == expected
    files = re.findall(r'(?:src|href)="\./([^"#]+)"', page.text)
    assets = [name for name in files if name.startswith("assets/")]
    assert assets, f"the page references no assets: {files}"
    for name in files:
        assert requests.get(f"{stack.page}/{name}", timeout=TIMEOUT_S).ok, f"{name} is not served"
    for name, encoding in product(assets, ("br", "gzip", None)):
        accepted = {"Accept-Encoding": encoding or "identity"}
        asset = requests.get(f"{stack.page}/{name}", headers=accepted, timeout=TIMEOUT_S)
        assert asset.headers.get("Content-Encoding") == encoding, f"{name}: {asset.headers}"
        assert asset.headers["Cache-Control"] == IMMUTABLE, asset.headers
        assert "Accept-Encoding" in asset.headers["Vary"], asset.headers
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
    health = requests.get(f"{stack.page}/health", timeout=TIMEOUT_S).json()
    assert health["model_loaded"], f"/health at the address of the page: {health}"


def job_completes(stack: Stack) -> None:
    job_id = stack.submit(TRACKS)
    stack.completed(job_id)
    assert len(decoded(stack.music(job_id))) == SEGMENT
    removed = requests.delete(f"{stack.api}/api/cleanup/{job_id}", timeout=TIMEOUT_S)
    assert removed.ok, removed.text


def event_stream_is_not_buffered(stack: Stack) -> None:
    """The event stream is not buffered by nginx: statuses arrive before the final one."""
    job_id = stack.submit(TRACKS)
    address = f"{stack.page}/api/events/{job_id}"
    with requests.get(address, stream=True, timeout=DONE_WITHIN_S) as events:
        statuses = [
            json.loads(line[5:]) for line in events.iter_lines() if line.startswith(b"data:")
        ]
    assert statuses[-1]["status"] == "completed", statuses
    assert len(statuses) > 2, f"nginx forwarded only {statuses}"


def errors_come_from_the_orchestrator(stack: Stack) -> None:
    body = b"0" * TOO_LARGE
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    address = f"{stack.api}/api/generate"
    rejected = requests.post(address, data=body, headers=headers, timeout=TIMEOUT_S)
    assert rejected.status_code == 413, f"{TOO_LARGE} bytes: {rejected.status_code}"
    assert rejected.json()["code"] == "request_too_large"


def clients_are_distinguished_by_address(stack: Stack) -> None:
    """Rate limits use the address seen by nginx, and ignore X-Forwarded-For."""
    address = f"{stack.api}/api/generate"
    for number in range(RATE_LIMIT + 1):
        spoofed = {"X-Forwarded-For": f"192.0.2.{number}"}
        files = {"track1": ("notes.txt", b"no music")}
        response = requests.post(address, files=files, headers=spoofed, timeout=TIMEOUT_S)
    assert response.status_code == 429, f"status of the last request: {response.status_code}"
    curl = ("curl", "-s", "-F", "track1=@/etc/hostname", "http://127.0.0.1:8001/api/generate")
    error = json.loads(stack.podman.execute("nginx", *curl))
    assert error["code"] == "unsupported_format", f"response to another client: {error}"


def prometheus_scrapes_both(stack: Stack) -> None:
    def both_are_up() -> bool:
        up = {each["metric"]["job"]: each["value"][1] for each in stack.query_prometheus("up")}
        return {job for job, value in up.items() if value == "1"} >= {"orchestrator", "torchserve"}

    eventually(both_are_up, SCRAPED_WITHIN_S, "scrapes by Prometheus")


def checkpoint_is_swapped(stack: Stack) -> None:
    """After a deployment of another checkpoint, the same tracks result in different music."""
    before = _music_of(stack)
    weights = model_weights.random_weights(model_weights.cascade_shapes(128, 2))
    arguments = {"encoding_dim": 128, "nhead": 8, "num_layers": 2, "num_transformer_layers": 2}
    checkpoints = stack.podman.tree / "checkpoints"
    model_weights.save(checkpoints / NEW_CHECKPOINT, weights, arguments)
    model = ("musiclab", "model")
    options = ("--version", NEW_VERSION, "--checkpoint", f"checkpoints/{NEW_CHECKPOINT}", "--force")
    stack.podman.execute("torchserve", *model, "pack", *options)
    stack.podman.execute("torchserve", *model, "deploy", NEW_VERSION)

    def is_default() -> bool:
        health = requests.get(f"{stack.api}/health", timeout=TIMEOUT_S).json()
        return bool(health["model_version"] == NEW_VERSION)

    eventually(is_default, TIMEOUT_S, "the new version as the default version")
    assert _music_of(stack) != before, "the new checkpoint generates the same music"


def _music_of(stack: Stack) -> str:
    job_id = stack.submit(TRACKS)
    stack.completed(job_id)
    return hashlib.sha256(stack.music(job_id)).hexdigest()


def torchserve_is_restarted(stack: Stack) -> None:
    """The container is restarted after a kill, and a job submitted meanwhile completes.

    TorchServe restarts with the version deployed last.
    """
    old = stack.podman.inspect("torchserve")["State"]["Pid"]
    os.kill(old, signal.SIGKILL)
    done = stack.completed(stack.submit(TRACKS))
    assert done["model_version"] == NEW_VERSION, f"restarted with {done['model_version']}"
    assert stack.podman.inspect("torchserve")["State"]["Pid"] != old


def recreated_orchestrator_is_reachable(stack: Stack) -> None:
    """As in an upgrade: nginx and the jobs are kept while the orchestrator is recreated."""
    job_id = stack.submit(TRACKS)
    stack.completed(job_id)
    stack.podman("stop", "--time", "30", stack.podman.name("orchestrator"))
    rejected = requests.get(f"{stack.api}/api/status/{job_id}", timeout=TIMEOUT_S)
    assert rejected.status_code == 503 and rejected.json()["code"] == "unavailable", rejected.text
    stack.podman.compose("up", "--detach", "--force-recreate", "--no-deps", "orchestrator")
    stack.wait_healthy("orchestrator")
    eventually(lambda: stack.status(job_id)["status"] == "completed", TIMEOUT_S, "the earlier job")


def containers_stop_on_sigterm(stack: Stack) -> None:
    """Containers stop within their grace period: exit status 0, or 143 if ended by SIGTERM."""
    for service in SERVICES:
        started = time.monotonic()
        stack.podman("stop", "--time", "40", stack.podman.name(service))
        seconds = time.monotonic() - started
        code = stack.podman.inspect(service)["State"]["ExitCode"]
        assert code in (0, 143), f"{service} exited with {code} after {seconds:.0f} s"


STEPS = (
    only_two_ports_are_published,
    no_process_runs_as_root,
    images_contain_only_their_dependencies,
    page_is_served,
    metrics_and_in_flight_are_not_exposed,
    job_completes,
    event_stream_is_not_buffered,
    errors_come_from_the_orchestrator,
    prometheus_scrapes_both,
    checkpoint_is_swapped,
    torchserve_is_restarted,
    recreated_orchestrator_is_reachable,
    clients_are_distinguished_by_address,
    containers_stop_on_sigterm,
)
