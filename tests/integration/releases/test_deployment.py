"""Deployments: a new version becomes the default, or the previous one stays the default."""

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
    """`musiclab up` with its own model store, which holds FIRST and SECOND."""
    limits = {"rate_limit": 0, "reuse_results": False}
    settings = settings_in(tmp_path_factory.mktemp("deployment")).model_copy(update=limits)
    pack_two(settings)
    with running(settings, "up"):
        yield Service(settings)


def test_no_job_is_lost_during_deployments(service: Service) -> None:
    report = run_swaps(service, deploys=1, bare=1, clients=2, jobs_between=1)
    assert not report.load.failures
    assert set(report.load.completed) == {FIRST, SECOND}


@pytest.fixture
def service_with_first(service: Service) -> Service:
    """The same service with only FIRST loaded, whichever versions the previous test left."""
    if default(service) != FIRST:
        deploy(service, FIRST)
    for version in versions(service) - {FIRST}:
        musiclab(service, "model", "remove", version, "--keep-archive")
    DesiredStateFile(service.settings).write(DesiredState(FIRST))
    return service


def musiclab(service: Service, *arguments: str) -> str:
    """Runs a command that must succeed; returns its output."""
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


def test_a_deployed_version_survives_a_restart_and_can_be_rolled_back(
    service_with_first: Service,
) -> None:
    output = deploy(service_with_first, SECOND)
    for step in (
        "is registered",
        "a worker is ready",
        "canary job",
        "is now the default",
        "is unloaded",
    ):
        assert step in output
    assert (default(service_with_first), versions(service_with_first)) == (SECOND, {SECOND})
    assert wanted(service_with_first) == DesiredState(SECOND, previous=(FIRST,))
    assert archive_path(service_with_first.settings.model_store, FIRST).exists()
    assert "is already the default" in deploy(service_with_first, SECOND)

    kill_torchserve(service_with_first)
    assert versions(service_with_first) == {SECOND}

    musiclab(service_with_first, "model", "rollback")
    assert (default(service_with_first), versions(service_with_first)) == (FIRST, {FIRST})
    assert wanted(service_with_first) == DesiredState(FIRST)
    failed = run(service_with_first, "model", "rollback")
    assert failed.returncode == 1
    assert "no version to roll back to" in failed.stderr


def test_two_versions_stay_loaded_until_one_is_removed(service_with_first: Service) -> None:
    copy = altered(service_with_first.settings, SECOND, "spare", unchanged)
    deploy(service_with_first, copy, "--keep-old")
    assert (default(service_with_first), versions(service_with_first)) == (copy, {FIRST, copy})
    assert wanted(service_with_first) == DesiredState(copy, (FIRST,), (FIRST,))
    table = musiclab(service_with_first, "model", "list").splitlines()
    listed = {line.split()[0]: line for line in table}
    assert "default" in listed[copy]
    assert "additional" in listed[FIRST]

    rejected = run(service_with_first, "model", "remove", copy)
    assert rejected.returncode == 1
    assert f"version {copy} is the default; deploy another" in rejected.stderr
    deploy(service_with_first, FIRST)
    assert versions(service_with_first) == {FIRST}
    musiclab(service_with_first, "model", "remove", copy)
    assert not archive_path(service_with_first.settings.model_store, copy).exists()


def test_changes_through_the_management_api_are_recorded(service_with_first: Service) -> None:
    client = client_of(service_with_first)
    register(client, SECOND)
    manage(client, "PUT", f"/models/musiclab/{SECOND}/set-default")
    expected = DesiredState(SECOND, additional=(FIRST,), previous=(FIRST,))
    until(lambda: wanted(service_with_first) == expected, f"{expected} is recorded")


def kill_torchserve(service: Service) -> None:
    """Kills TorchServe and waits until its replacement is ready."""
    service.kill_torchserve()
    until(lambda: service.call("GET", "/ready").status_code == 503, "the model is unavailable")
    until(lambda: service.call("GET", "/ready").status_code == 200, "a model is ready")


def without(removed: str) -> Change:
    return lambda name, content: None if name == removed else content


BROKEN = {
    "missing weights": (without("checkpoint.pt"), "did not load: .*checkpoint.pt"),
    "other codec": (
        lambda name, content: b"other" if name == "codec.th" else content,
        "did not load: .*the SHA-256 of codec.th does not match the archive's manifest",
    ),
    "starter codec under the official one's name": (
        with_text(MANIFEST, '"kind": "starter"', '"kind": "official"'),
        "did not load: ",
    ),
    "NaN output": (
        with_text(
            "musiclab_handler.py",
            "generated.waveforms.numpy(), strict",
            "(generated.waveforms * float('nan')).numpy(), strict",
        ),
        "failed the canary job with 500: the output for these tracks contains NaN",
    ),
    "handler that raises": (
        with_text("musiclab_handler.py", "return write_wav(", "raise KeyError('broken')\n    ("),
        "failed the canary job with 503: .*; its worker: KeyError: 'broken'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_archive_is_explained_and_changes_nothing(
    service_with_first: Service, fault: str
) -> None:
    change, explanation = BROKEN[fault]
    version = altered(service_with_first.settings, SECOND, "broken", change)
    before = wanted(service_with_first)
    try:
        failed = run(service_with_first, "model", "deploy", version)
    finally:
        archive_path(service_with_first.settings.model_store, version).unlink()
    assert failed.returncode == 1, failed.stdout
    assert re.search(explanation, failed.stderr), failed.stderr
    assert "Traceback" not in failed.stderr
    assert (default(service_with_first), versions(service_with_first)) == (FIRST, {FIRST})
    assert wanted(service_with_first) == before
