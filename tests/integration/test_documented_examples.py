"""The examples of the documentation run as they are printed, apart from addresses and job IDs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.documentation import DOCS, code_block
from tests.support.project import PROJECT
from tests.support.service import Service
from tests.support.signals import RATE, SEGMENT, decoded, encoded
from tests.support.tracks import make_track, varying_noise

JOB_ID = "6f0c..."


@pytest.fixture(scope="module")
def directory(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the examples: the tracks that they name, and the run directory."""
    directory = tmp_path_factory.mktemp("examples")
    sound = varying_noise(60)
    make_track(directory, "cbr.mp3", sound).rename(directory / "a.mp3")
    make_track(directory, "edit_list.m4a", sound).rename(directory / "b.m4a")
    for name in ("a.wav", "b.wav"):
        (directory / name).write_bytes(encoded(sound[: 20 * RATE]))
    (directory / "run").symlink_to(service.settings.run_dir)
    return directory


def run(service: Service, directory: Path, *command: str) -> str:
    """Runs an example against the service, and returns what it prints."""
    ports = {
        "8001": service.settings.api_port,
        "8080": service.settings.inference_port,
        "8081": service.settings.management_port,
    }
    arguments = [
        re.sub(r"localhost:(\d+)", lambda found: f"127.0.0.1:{ports[found[1]]}", argument)
        for argument in command
    ]
    done = subprocess.run(arguments, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def assert_music(wav: Path) -> None:
    sound = decoded(wav.read_bytes())
    assert len(sound) == SEGMENT
    assert np.abs(sound).max() > 0.01
    wav.unlink()


def test_the_examples_for_curl(service: Service, directory: Path) -> None:
    block = code_block(PROJECT / "README.md", "curl -F track1=@a.mp3")
    assert code_block(DOCS / "quickstart.md", "curl -F track1=@a.mp3") == block
    submit, *rest = (line for line in block.splitlines() if not line.startswith("#"))
    accepted = json.loads(run(service, directory, "bash", "-c", submit))
    assert accepted.keys() == {"job_id", "status", "message"}
    service.finished(accepted["job_id"])
    commands = "\n".join(rest).replace(JOB_ID, accepted["job_id"])
    assert "completed" in run(service, directory, "bash", "-ec", commands)
    assert_music(directory / "out.wav")


def test_the_example_for_python(service: Service, directory: Path) -> None:
    block = code_block(DOCS / "api.md", "MusicLabClient")
    assert "100" in run(service, directory, sys.executable, "-c", block)
    assert_music(directory / "out.wav")


def test_the_examples_for_checking_a_track(service: Service, directory: Path) -> None:
    by_name = code_block(DOCS / "api.md", "size=3500123")
    assert run(service, directory, "bash", "-c", by_name).startswith("HTTP/1.1 204")
    by_content = code_block(DOCS / "api.md", "/api/check/track1\n# {")
    assert json.loads(run(service, directory, "bash", "-c", by_content))["duration_s"] > 59


def test_the_examples_for_torchserve(service: Service, directory: Path) -> None:
    run(service, directory, "bash", "-ec", code_block(DOCS / "models.md", "predictions/musiclab"))
    assert_music(directory / "out.wav")
