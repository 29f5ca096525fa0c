"""A machine without the model's packages is told what to install."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from orchestrator.archives import model_packages
from orchestrator.archives.model_packages import FROM_WHEEL, MODEL_PACKAGES, require_packages
from orchestrator.archives.packing import pack
from orchestrator.archives.packing_inputs import choose_inputs
from orchestrator.cli import app
from orchestrator.errors import ModelPackagesMissingError
from orchestrator.paths import PATHS
from orchestrator.settings import Settings


def lack(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Let these packages seem not to be installed."""
    monkeypatch.setattr(
        model_packages, "find_spec", lambda name: None if name in missing else object()
    )


@pytest.fixture
def own_folders(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings, as commands find them in their environment."""
    for name in ("cache", "run_dir", "checkpoints", "model_store"):
        monkeypatch.setenv(f"MUSICLAB_{name.upper()}", str(getattr(settings, name)))
    return settings


def test_they_are_all_installed_here() -> None:
    require_packages()


def test_a_machine_without_any_runs_no_model(
    own_folders: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, *MODEL_PACKAGES)
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 0, found.stdout
    (line,) = (line for line in found.stdout.splitlines() if line.startswith("note    model"))
    assert "`musiclab orchestrator` runs without it" in line
    assert "make setup" in line
    assert "Java" not in found.stdout


def test_a_machine_that_lacks_one_is_incomplete(
    own_folders: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, "encodec")
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 1
    (line,) = (line for line in found.stdout.splitlines() if line.startswith("missing encodec"))
    assert "make setup" in line


def test_packing_names_what_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "torch", "ts")
    with pytest.raises(ModelPackagesMissingError, match=r"torch, ts; `make setup`"):
        pack(settings, choose_inputs(settings))


def test_an_installed_wheel_says_which_commands_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_packages, "PATHS", replace(PATHS, is_checkout=False))
    lack(monkeypatch, "torch")
    with pytest.raises(ModelPackagesMissingError) as raised:
        require_packages()
    assert str(raised.value).endswith(FROM_WHEEL)
