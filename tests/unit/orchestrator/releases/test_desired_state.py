"""What is to serve, as it is written down."""

import json

import pytest

from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.releases.desired_state import FILE, MAX_PREVIOUS, DesiredState, DesiredStateFile
from orchestrator.settings import Settings


def test_another_default_can_be_gone_back_from() -> None:
    wanted = DesiredState("a", additional=("b", "c"))
    assert wanted.with_default("a") == wanted
    assert wanted.with_default("b") == DesiredState("b", ("c",), ("a",))
    assert wanted.with_default("b").with_default("a") == DesiredState("a", ("c",), ("b",))


def test_what_served_long_ago_is_forgotten() -> None:
    wanted = DesiredState("0")
    for number in range(1, MAX_PREVIOUS + 3):
        wanted = wanted.with_default(str(number))
    assert wanted.previous == tuple(str(number) for number in range(2, MAX_PREVIOUS + 2))


def test_a_version_is_beside_once() -> None:
    wanted = DesiredState("a").with_additional("b").with_additional("c").with_additional("b")
    assert wanted == DesiredState("a", ("c", "b"))
    assert wanted.without("c").without("c") == DesiredState("a", ("b",))


def test_it_is_read_as_it_was_written(settings: Settings) -> None:
    versions = DesiredStateFile(settings)
    assert versions.read() is None
    wanted = DesiredState("a", ("b",), ("c", "d"))
    settings.model_server_dir.mkdir(parents=True)
    versions.write(wanted)
    assert DesiredStateFile(settings).read() == wanted


def test_the_file_keeps_its_keys(settings: Settings) -> None:
    """Those of files that were written by earlier versions."""
    settings.model_server_dir.mkdir(parents=True)
    file = settings.model_server_dir / FILE
    content = {"default": "a", "beside": ["b"], "previous": ["c", "d"]}
    file.write_text(json.dumps(content))
    read = DesiredStateFile(settings).read()
    assert read == DesiredState("a", additional=("b",), previous=("c", "d"))
    DesiredStateFile(settings).write(read)
    assert json.loads(file.read_text()) == content


@pytest.mark.parametrize("content", ["", "[]", '{"default": "a"}', '{"default'])
def test_a_file_that_cannot_be_read_is_named(settings: Settings, content: str) -> None:
    settings.model_server_dir.mkdir(parents=True)
    (settings.model_server_dir / FILE).write_text(content)
    with pytest.raises(ArchiveError, match=r"wanted\.json cannot be read"):
        DesiredStateFile(settings).read()


def test_archives_that_are_missing_are_left_out(settings: Settings) -> None:
    versions = DesiredStateFile(settings)
    settings.model_store.mkdir(parents=True)
    wanted = DesiredState("a", ("b", "c"))
    assert versions.archives(None) == versions.archives(wanted) == []
    for version in ("a", "c"):
        (settings.model_store / f"musiclab-{version}.mar").touch()
    names = [archive.name for archive in versions.archives(wanted)]
    assert names == ["musiclab-a.mar", "musiclab-c.mar"]


def test_one_changes_it_at_a_time(settings: Settings) -> None:
    with (
        DesiredStateFile(settings).exclusive(),
        pytest.raises(DeploymentError, match="another command"),
        DesiredStateFile(settings).exclusive(),
    ):
        pass
    with DesiredStateFile(settings).exclusive():
        pass


def test_a_version_is_chosen_alone(settings: Settings) -> None:
    versions = DesiredStateFile(settings)
    versions.set_default("a")
    versions.write(DesiredState("a", ("b",)))
    versions.set_default("c")
    assert versions.read() == DesiredState("c", (), ("a",))
