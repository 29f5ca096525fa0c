"""The `musiclab` command: what it prints, and how it ends when something is wrong."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.archives.archive import read_manifest
from orchestrator.cli import doctor
from orchestrator.cli.main import app


def musiclab(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_inspect_shows_every_fact_uncut(starter_archive: Path) -> None:
    shown = musiclab("model", "inspect", starter_archive)
    assert shown.exit_code == 0
    manifest = read_manifest(starter_archive)
    for fact in (
        manifest["fingerprint"],
        manifest["checkpoint"]["sha256"],
        manifest["codec"]["sha256"],
        "cascade",
    ):
        assert fact in shown.output
    assert "checkpoint.args.num_layers" in shown.output


def test_inspect_refuses_what_is_not_an_archive(tmp_path: Path) -> None:
    refused = musiclab("model", "inspect", tmp_path / "[gone].mar")
    assert refused.exit_code == 1
    assert "error: there is no archive at" in refused.stderr
    assert "[gone].mar" in refused.stderr


def test_pack_refuses_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSICLAB_CHECKPOINTS", str(tmp_path))
    refused = musiclab("model", "pack", "--codec", "official")
    assert refused.exit_code == 1
    assert "musiclab codec fetch" in refused.stderr
    assert "Traceback" not in refused.output


def test_pack_knows_two_codecs_and_two_devices() -> None:
    assert musiclab("model", "pack", "--codec", "other").exit_code == 2
    assert musiclab("model", "pack", "--device", "tpu").exit_code == 2


def test_two_ports_that_are_the_same_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSICLAB_METRICS_PORT", "8080")
    refused = musiclab("serve-model")
    assert refused.exit_code == 1
    assert "MUSICLAB_INFERENCE_PORT and MUSICLAB_METRICS_PORT are both 8080" in refused.stderr


def test_a_folder_that_cannot_be_made_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MUSICLAB_MODEL_STORE", str(tmp_path / "file" / "store"))
    refused = musiclab("model", "pack")
    assert refused.exit_code == 1
    assert f"Not a directory ({tmp_path / 'file' / 'store'})" in refused.stderr


@pytest.mark.parametrize("port", ["http", "0", "65536"])
def test_a_setting_at_fault_is_named(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("MUSICLAB_METRICS_PORT", port)
    refused = musiclab("serve-model")
    assert refused.exit_code == 1
    assert f"MUSICLAB_METRICS_PORT is '{port}'" in refused.stderr


@pytest.mark.parametrize("role", ["api", "worker"])
def test_processes_that_share_jobs_need_a_database(role: str) -> None:
    refused = musiclab(role)
    assert refused.exit_code == 1
    assert "MUSICLAB_DATABASE_URL" in refused.stderr
    assert "musiclab up" in refused.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MUSICLAB_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("MUSICLAB_RATE_LIMIT", "-1"),
        ("MUSICLAB_KEEP_HOURS", "0"),
        ("MUSICLAB_MIN_FREE_DISK_PERCENT", "101"),
    ],
)
def test_limits_at_fault_are_named(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    monkeypatch.setenv(setting, value)
    refused = musiclab("doctor")
    assert refused.exit_code == 1
    assert f"{setting} is '{value}'" in refused.stderr


def test_doctor_names_what_is_away_and_a_page_that_is_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "DATABASE_TIMEOUT_S", 0.2)
    monkeypatch.setenv("MUSICLAB_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("MUSICLAB_FILES_URL", "ftp://nowhere")
    monkeypatch.setenv("MUSICLAB_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("MUSICLAB_PAGE", str(tmp_path))
    found = musiclab("doctor")
    assert found.exit_code == 1
    said = {" ".join(line.split()[:2]): line for line in found.stdout.splitlines()}
    assert "does not answer" in said["missing database"]
    assert "MUSICLAB_FILES_URL" in said["missing files"]
    assert "make setup" in said["note page"]
