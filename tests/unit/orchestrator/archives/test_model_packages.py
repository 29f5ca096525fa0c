"""Missing packages of the model are reported with the command that installs them."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from orchestrator.archives import model_packages
from orchestrator.archives.model_packages import (
    MODEL_PACKAGES,
    WHEEL_INSTRUCTIONS,
    require_packages,
)
from orchestrator.archives.packing import pack
from orchestrator.archives.packing_inputs import choose_inputs
from orchestrator.cli import app
from orchestrator.errors import ModelPackagesMissingError
from orchestrator.paths import PATHS
from orchestrator.settings import Settings


def hide_packages(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Make these packages appear not to be installed."""
    monkeypatch.setattr(
        model_packages, "find_spec", lambda name: None if name in missing else object()
    )


@pytest.fixture
def exported_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings, exported as environment variables for commands."""
    for name in ("cache", "run_dir", "checkpoints", "model_store"):
        monkeypatch.setenv(f"MUSICLAB_{name.upper()}", str(getattr(settings, name)))
    return settings


def test_all_packages_are_installed_here() -> None:
    require_packages()


def test_doctor_accepts_a_machine_without_any_model_package(
    exported_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, *MODEL_PACKAGES)
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 0, found.stdout
    (line,) = (line for line in found.stdout.splitlines() if line.startswith("note    model"))
    assert "`musiclab orchestrator` runs without it" in line
    assert "make setup" in line
    assert "Java" not in found.stdout


def test_doctor_reports_a_missing_model_package(
    exported_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "encodec")
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 1
    (line,) = (line for line in found.stdout.splitlines() if line.startswith("missing encodec"))
    assert "make setup" in line


def test_packing_names_the_missing_packages(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "torch", "ts")
    with pytest.raises(ModelPackagesMissingError, match=r"torch, ts; run `make setup`"):
        pack(settings, choose_inputs(settings))


def test_an_installed_wheel_names_the_commands_that_install_the_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_packages, "PATHS", replace(PATHS, is_checkout=False))
    hide_packages(monkeypatch, "torch")
    with pytest.raises(ModelPackagesMissingError) as raised:
        require_packages()
    assert str(raised.value).endswith(WHEEL_INSTRUCTIONS)
