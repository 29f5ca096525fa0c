"""What is to serve, as it is written down."""

from pathlib import Path

import pytest

from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.wanted import FILE, REMEMBERED, Wanted, WantedVersions


def test_another_default_can_be_gone_back_from() -> None:
    wanted = Wanted("a", beside=("b", "c"))
    assert wanted.with_default("a") == wanted
    assert wanted.with_default("b") == Wanted("b", ("c",), ("a",))
    assert wanted.with_default("b").with_default("a") == Wanted("a", ("c",), ("b",))


def test_what_served_long_ago_is_forgotten() -> None:
    wanted = Wanted("0")
    for number in range(1, REMEMBERED + 3):
        wanted = wanted.with_default(str(number))
    assert wanted.previous == tuple(str(number) for number in range(2, REMEMBERED + 2))


def test_a_version_is_beside_once() -> None:
    wanted = Wanted("a").with_beside("b").with_beside("c").with_beside("b")
    assert wanted == Wanted("a", ("c", "b"))
    assert wanted.without("c").without("c") == Wanted("a", ("b",))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    versions = WantedVersions(tmp_path)
    assert versions.read() is None
    wanted = Wanted("a", ("b",), ("c", "d"))
    versions.write(wanted)
    assert WantedVersions(tmp_path).read() == wanted
    versions.forget()
    assert versions.read() is None


@pytest.mark.parametrize("content", ["", "[]", '{"default": "a"}', '{"default'])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ArchiveError, match=r"wanted\.json cannot be read"):
        WantedVersions(tmp_path).read()


def test_archives_that_are_missing_are_left_out(tmp_path: Path) -> None:
    versions = WantedVersions(tmp_path)
    versions.write(Wanted("a", ("b", "c")))
    assert versions.archives() == []
    for version in ("a", "c"):
        (tmp_path / f"musiclab-{version}.mar").touch()
    assert [archive.name for archive in versions.archives()] == ["musiclab-a.mar", "musiclab-c.mar"]


def test_one_changes_it_at_a_time(tmp_path: Path) -> None:
    with (
        WantedVersions(tmp_path).changing(),
        pytest.raises(DeploymentError, match="another command"),
        WantedVersions(tmp_path).changing(),
    ):
        pass
    with WantedVersions(tmp_path).changing():
        pass
