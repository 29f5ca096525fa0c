"""The `musiclab` command: its output, and its exit status on errors."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.archives.archive import read_manifest
from orchestrator.cli import doctor
from orchestrator.cli.main import app


def musiclab(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_inspect_shows_every_fact_in_full(starter_archive: Path) -> None:
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


def test_inspect_rejects_a_missing_archive(tmp_path: Path) -> None:
    rejected = musiclab("model", "inspect", tmp_path / "[gone].mar")
    assert rejected.exit_code == 1
    assert "error: there is no archive at" in rejected.stderr
    assert "[gone].mar" in rejected.stderr


def test_pack_reports_an_error_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSICLAB_CHECKPOINTS", str(tmp_path))
    rejected = musiclab("model", "pack", "--codec", "official")
    assert rejected.exit_code == 1
    assert "musiclab codec fetch" in rejected.stderr
    assert "Traceback" not in rejected.output


def test_pack_rejects_unknown_codecs_and_devices() -> None:
    assert musiclab("model", "pack", "--codec", "other").exit_code == 2
    assert musiclab("model", "pack", "--device", "tpu").exit_code == 2


def test_settings_with_the_same_port_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSICLAB_METRICS_PORT", "8080")
    rejected = musiclab("serve-model")
    assert rejected.exit_code == 1
    assert "MUSICLAB_INFERENCE_PORT and MUSICLAB_METRICS_PORT are both 8080" in rejected.stderr


def test_a_directory_that_cannot_be_created_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MUSICLAB_MODEL_STORE", str(tmp_path / "file" / "store"))
    rejected = musiclab("model", "pack")
    assert rejected.exit_code == 1
    assert f"Not a directory ({tmp_path / 'file' / 'store'})" in rejected.stderr


@pytest.mark.parametrize("port", ["http", "0", "65536"])
def test_an_invalid_port_is_named(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("MUSICLAB_METRICS_PORT", port)
    rejected = musiclab("serve-model")
    assert rejected.exit_code == 1
    assert f"MUSICLAB_METRICS_PORT is '{port}'" in rejected.stderr


@pytest.mark.parametrize("role", ["api", "worker"])
def test_api_and_worker_require_a_shared_database(role: str) -> None:
    rejected = musiclab(role)
    assert rejected.exit_code == 1
    assert "MUSICLAB_DATABASE_URL" in rejected.stderr
    assert "musiclab up" in rejected.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MUSICLAB_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("MUSICLAB_RATE_LIMIT", "-1"),
        ("MUSICLAB_KEEP_HOURS", "0"),
        ("MUSICLAB_MIN_FREE_DISK_PERCENT", "101"),
    ],
)
def test_an_invalid_limit_is_named(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    monkeypatch.setenv(setting, value)
    rejected = musiclab("doctor")
    assert rejected.exit_code == 1
    assert f"{setting} is '{value}'" in rejected.stderr


def test_doctor_names_unreachable_services_and_a_page_that_is_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "DATABASE_TIMEOUT_S", 0.2)
    monkeypatch.setenv("MUSICLAB_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("MUSICLAB_FILES_URL", "ftp://nowhere")
    monkeypatch.setenv("MUSICLAB_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("MUSICLAB_PAGE", str(tmp_path))
    found = musiclab("doctor")
    assert found.exit_code == 1
    lines = {" ".join(line.split()[:2]): line for line in found.stdout.splitlines()}
    assert "the database is unreachable" in lines["missing database"]
    assert "MUSICLAB_FILES_URL" in lines["missing files"]
    assert "make setup" in lines["note page"]
