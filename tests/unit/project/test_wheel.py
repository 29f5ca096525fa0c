"""The wheel contains all files that MusicLab needs; `make wheel-test` installs and runs it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.archives.packing_inputs import choose_inputs
from orchestrator.settings import Settings
from tests.support.project import PROJECT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    hatchling = (sys.executable, "-m", "hatchling", "build", "--target", "wheel")
    built = subprocess.run(
        [*hatchling, "--directory", folder], cwd=PROJECT, capture_output=True, text=True
    )
    assert built.returncode == 0, f"the wheel cannot be built:\n{built.stderr}"
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def run_installed(site: Path, home: Path, script: str) -> str:
    """The output of a script that imports the unpacked wheel, run outside the checkout."""
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    completed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=home,
        env={**kept, "HOME": str(home), "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def test_the_files_match_the_repository(installed: Path) -> None:
    bundle = installed / "orchestrator" / "bundle"
    for name in ("config.properties", "log4j2.xml", "metrics.yaml"):
        assert (bundle / name).read_bytes() == (PROJECT / name).read_bytes()
    for folder, copy in (
        (PROJECT / "frontend" / "dist", bundle / "page"),
        (PROJECT / "handlers", bundle / "handlers"),
        (PROJECT / "orchestrator", installed / "orchestrator"),
    ):
        expected = contents(folder)
        found = {name: content for name, content in contents(copy).items() if name in expected}
        assert found == expected
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "orchestrator"
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_data_is_stored_in_the_standard_directories(installed: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    script = (
        "from orchestrator.settings import Settings\n"
        "for name in ('checkpoints', 'model_store', 'cache', 'run_dir', 'page'):\n"
        "    print(getattr(Settings(), name))"
    )
    assert run_installed(installed, home, script).splitlines() == [
        f"{home}/.local/share/musiclab/checkpoints",
        f"{home}/.local/share/musiclab/model_store",
        f"{home}/.local/state/musiclab/cache",
        f"{home}/.local/state/musiclab/run",
        f"{installed}/orchestrator/bundle/page",
    ]


def test_the_wheel_packs_the_same_files_as_the_checkout(
    installed: Path, tmp_path: Path, settings: Settings
) -> None:
    script = (
        "from orchestrator.archives.packing_inputs import choose_inputs\n"
        "from orchestrator.settings import Settings\n"
        "print(choose_inputs(Settings()).fingerprint())"
    )
    fingerprint = run_installed(installed, tmp_path / "home", script).strip()
    assert fingerprint == choose_inputs(settings).fingerprint()


def test_handlers_cannot_be_imported_outside_the_checkout(tmp_path: Path) -> None:
    """Otherwise a worker whose archive lacks a module would import it from the checkout."""
    variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}

    def run(script: str) -> subprocess.CompletedProcess[str]:
        python = (sys.executable, "-c", script)
        return subprocess.run(python, cwd=tmp_path, env=variables, capture_output=True, text=True)

    assert run("import orchestrator.settings").returncode == 0
    assert "No module named 'handlers'" in run("import handlers").stderr


def test_the_wheel_is_not_built_without_the_page(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    hatchling = (sys.executable, "-m", "hatchling", "build", "--target", "wheel")
    rejected = subprocess.run(hatchling, cwd=tmp_path, capture_output=True, text=True)
    assert rejected.returncode != 0
    assert "run `make wheel`" in rejected.stderr
