"""The lock files in requirements/ match pyproject.toml and the installed packages."""

import importlib.metadata
import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.project import PROJECT

FOLDER = PROJECT / "requirements"
LOCKS = sorted(path.name for path in FOLDER.iterdir())
DECLARED: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
GROUPS = DECLARED["dependency-groups"]
# GPU builds of torch come with their own libraries.
OF_GPU_BUILDS = re.compile("nvidia-|cuda-|triton")


def locked(name: str) -> dict[str, list[Requirement]]:
    """The requirements of a lock file by project; several if they differ by Python or platform."""
    found: dict[str, list[Requirement]] = {}
    for line in re.sub(r" *\\\n.*", "", (FOLDER / name).read_text()).splitlines():
        if not line.lstrip().startswith(("#", "--hash")):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version_locked_here(requirements: list[Requirement]) -> str | None:
    """The version locked for this Python and platform."""
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            return pin.version
    return None


def declared(*groups: str) -> list[Requirement]:
    """The requirements of these groups in pyproject.toml, or of MusicLab with its model."""
    project = DECLARED["project"]
    lines = [line for group in groups for line in GROUPS[group] if isinstance(line, str)]
    if not groups:
        lines = project["dependencies"] + project["optional-dependencies"]["model"]
    return [Requirement(line) for line in lines]


def test_every_installation_has_a_lock_file() -> None:
    single = {f"{group}.txt" for group in ("encodec", "java", "node", "uv")}
    assert set(LOCKS) == {"dev.txt", "model.txt", "orchestrator.txt"} | single


@pytest.mark.parametrize("image", ["nginx", "orchestrator", "torchserve"])
def test_images_install_only_from_lock_files(image: str) -> None:
    script = (PROJECT / f"deploy/{image}.Dockerfile").read_text().replace("\\\n", " ")
    installations = re.findall(r"(?<!uv )pip install [^;&\n]*", script)
    assert any("--require-hashes" in each for each in installations)
    for each in installations:
        assert "--no-deps" in each or "$TORCH_SOURCE" in each, f"{each} resolves dependencies"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_have_hashes_and_no_urls(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert not re.search("://|--.*(index|links)", text)
    entries = re.split(r"\n(?=[a-z0-9])", text)
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("model.txt", ()),
        ("model.txt", ("build", "torch")),
        ("dev.txt", ("dev",)),
        *((f"{group}.txt", (group,)) for group in ("encodec", "java", "node", "uv")),
    ],
)
def test_declared_requirements_are_locked(name: str, groups: tuple[str, ...]) -> None:
    lock = locked(name)
    for requirement in declared(*groups):
        pins = lock.get(canonicalize_name(requirement.name), [])
        assert pins, f"{requirement} is not in {name}: run make lock UPGRADE="
        for pin in pins:
            (version,) = pin.specifier
            assert requirement.specifier.contains(version.version), f"{pin} is not {requirement}"


def test_lock_files_agree_on_versions() -> None:
    all_versions = versions("dev.txt")
    for lock in ("orchestrator.txt", "model.txt", "java.txt", "uv.txt"):
        for project, found in versions(lock).items():
            assert found <= all_versions[project], f"{project} in {lock}: run make lock UPGRADE="


def versions(name: str) -> dict[str, set[str]]:
    return {project: {str(pin.specifier) for pin in pins} for project, pins in locked(name).items()}


def test_dependencies_of_torch_are_locked() -> None:
    lock = locked("model.txt")
    for line in importlib.metadata.requires("torch") or []:
        requirement = Requirement(line)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not OF_GPU_BUILDS.match(requirement.name):
            version = version_locked_here(lock.get(canonicalize_name(requirement.name), []))
            assert version, f"torch depends on {line}: add it to the group torch"
            assert requirement.specifier.contains(version), f"{version} is not {line}"


@pytest.mark.parametrize("name", ["dev.txt", "encodec.txt"])
def test_installed_versions_match_the_lock(name: str) -> None:
    expected = {project: version_locked_here(pins) for project, pins in locked(name).items()}
    expected = {project: version for project, version in expected.items() if version}
    found = {
        canonicalize_name(each.name): each.version
        for each in importlib.metadata.distributions()
        if canonicalize_name(each.name) in expected
    }
    assert found == expected, "the environment does not match the lock: run make setup"
