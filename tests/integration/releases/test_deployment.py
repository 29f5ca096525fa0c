"""Another version of the model is brought to serve, or is not, and what served before serves on."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from orchestrator.archives.archive import MANIFEST, archive_path
from orchestrator.releases.desired_state import DesiredState, DesiredStateFile
from tests.support.model_client import ModelClient
from tests.support.project import PROJECT
from tests.support.service import Service, command, environment, running
from tests.support.settings import settings_in
from tests.support.versions import (
    FIRST,
    SECOND,
    Change,
    altered,
    manage,
    pack_two,
    register,
    unchanged,
    with_text,
)
from tests.system.swaps.run import run as run_swaps

WITHIN_S = 90
POLL_S = 0.5


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`musiclab up` with a model store of its own, in which FIRST and SECOND are."""
    limits = {"rate_limit": 0, "reuse_results": False}
    settings = settings_in(tmp_path_factory.mktemp("deployment")).model_copy(update=limits)
    pack_two(settings)
    with running(settings, "up"):
        yield Service(settings)


def test_no_job_is_lost_under_swaps(service: Service) -> None:
    report = run_swaps(service, deploys=1, bare=1, clients=2, jobs_between=1)
    assert not report.load.faults
    assert set(report.load.completed) == {FIRST, SECOND}


@pytest.fixture
def serving_first(service: Service) -> Service:
    """The same, with FIRST alone, whatever a test before left."""
    if default(service) != FIRST:
        deploy(service, FIRST)
    for version in versions(service) - {FIRST}:
        musiclab(service, "model", "remove", version, "--keep-archive")
    DesiredStateFile(service.settings).write(DesiredState(FIRST))
    return service


def musiclab(service: Service, *arguments: str) -> str:
    """What a command prints that ends well."""
    ended = run(service, *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def run(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=PROJECT,
        env=environment(service.settings),
        capture_output=True,
        text=True,
    )


def deploy(service: Service, *arguments: str) -> str:
    return musiclab(service, "model", "deploy", *arguments)


def client_of(service: Service) -> ModelClient:
    return ModelClient(service.settings, service.settings.key_file)


def default(service: Service) -> str:
    described = client_of(service).manage("GET", "/models/musiclab").json()
    return str(described[0]["modelVersion"])


def versions(service: Service) -> set[str]:
    described = client_of(service).manage("GET", "/models/musiclab/all").json()
    return {model["modelVersion"] for model in described}


def wanted(service: Service) -> DesiredState | None:
    return DesiredStateFile(service.settings).read()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"after {WITHIN_S} s still not: {what}"
        time.sleep(POLL_S)


def test_a_deployed_version_outlives_torchserve_and_one_command_goes_back(
    serving_first: Service,
) -> None:
    said = deploy(serving_first, SECOND)
    for step in ("is registered", "a worker is ready", "canary job", "serves now", "is unloaded"):
        assert step in said
    assert (default(serving_first), versions(serving_first)) == (SECOND, {SECOND})
    assert wanted(serving_first) == DesiredState(SECOND, previous=(FIRST,))
    assert archive_path(serving_first.settings.model_store, FIRST).exists()
    assert "serves already" in deploy(serving_first, SECOND)

    kill_torchserve(serving_first)
    assert versions(serving_first) == {SECOND}

    musiclab(serving_first, "model", "rollback")
    assert (default(serving_first), versions(serving_first)) == (FIRST, {FIRST})
    assert wanted(serving_first) == DesiredState(FIRST)
    nowhere = run(serving_first, "model", "rollback")
    assert nowhere.returncode == 1
    assert "no version to go back to" in nowhere.stderr


def test_two_versions_side_by_side_until_one_is_removed(serving_first: Service) -> None:
    copy = altered(serving_first.settings, SECOND, "spare", unchanged)
    deploy(serving_first, copy, "--keep-old")
    assert (default(serving_first), versions(serving_first)) == (copy, {FIRST, copy})
    assert wanted(serving_first) == DesiredState(copy, (FIRST,), (FIRST,))
    table = musiclab(serving_first, "model", "list").splitlines()
    listed = {line.split()[0]: line for line in table}
    assert "default" in listed[copy]
    assert "beside" in listed[FIRST]

    refused = run(serving_first, "model", "remove", copy)
    assert refused.returncode == 1
    assert f"version {copy} is the one that serves" in refused.stderr
    deploy(serving_first, FIRST)
    assert versions(serving_first) == {FIRST}
    musiclab(serving_first, "model", "remove", copy)
    assert not archive_path(serving_first.settings.model_store, copy).exists()


def test_what_was_changed_by_hand_is_noted(serving_first: Service) -> None:
    client = client_of(serving_first)
    register(client, SECOND)
    manage(client, "PUT", f"/models/musiclab/{SECOND}/set-default")
    noted = DesiredState(SECOND, additional=(FIRST,), previous=(FIRST,))
    until(lambda: wanted(serving_first) == noted, f"{noted} is noted")


def kill_torchserve(service: Service) -> None:
    """Kill its process, and wait for the next one to be ready."""
    service.kill_torchserve()
    until(lambda: service.call("GET", "/ready").status_code == 503, "the model is away")
    until(lambda: service.call("GET", "/ready").status_code == 200, "a model is ready")


def without(lost: str) -> Change:
    return lambda name, content: None if name == lost else content


BROKEN = {
    "missing weights": (without("checkpoint.pt"), "did not load: .*checkpoint.pt"),
    "other codec": (
        lambda name, content: b"other" if name == "codec.th" else content,
        "did not load: .*codec.th in the archive is not the file of its manifest",
    ),
    "starter codec under the official one's name": (
        with_text(MANIFEST, '"kind": "starter"', '"kind": "official"'),
        "did not load: ",
    ),
    "NaN of music": (
        with_text(
            "musiclab_handler.py",
            "generated.waveforms.numpy(), strict",
            "(generated.waveforms * float('nan')).numpy(), strict",
        ),
        "answered the canary job with 500: the model made NaN",
    ),
    "handler that raises": (
        with_text("musiclab_handler.py", "return write_wav(", "raise KeyError('broken')\n    ("),
        "answered the canary job with 503: .*; its worker: KeyError: 'broken'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_archive_changes_nothing_and_is_explained(
    serving_first: Service, fault: str
) -> None:
    change, explanation = BROKEN[fault]
    version = altered(serving_first.settings, SECOND, "broken", change)
    before = wanted(serving_first)
    try:
        failed = run(serving_first, "model", "deploy", version)
    finally:
        archive_path(serving_first.settings.model_store, version).unlink()
    assert failed.returncode == 1, failed.stdout
    assert re.search(explanation, failed.stderr), failed.stderr
    assert "Traceback" not in failed.stderr
    assert (default(serving_first), versions(serving_first)) == (FIRST, {FIRST})
    assert wanted(serving_first) == before
