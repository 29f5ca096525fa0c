"""The desired state: default version, additional versions and previous defaults."""

import json

import pytest

from orchestrator.errors import ArchiveError, DeploymentError
from orchestrator.releases.desired_state import FILE, MAX_PREVIOUS, DesiredState, DesiredStateFile
from orchestrator.settings import Settings


def test_changing_the_default_remembers_the_previous_one() -> None:
    state = DesiredState("a", additional=("b", "c"))
    assert state.with_default("a") == state
    assert state.with_default("b") == DesiredState("b", ("c",), ("a",))
    assert state.with_default("b").with_default("a") == DesiredState("a", ("c",), ("b",))


def test_the_oldest_defaults_are_forgotten() -> None:
    state = DesiredState("0")
    for number in range(1, MAX_PREVIOUS + 3):
        state = state.with_default(str(number))
    assert state.previous == tuple(str(number) for number in range(2, MAX_PREVIOUS + 2))


def test_an_additional_version_is_listed_once() -> None:
    state = DesiredState("a").with_additional("b").with_additional("c").with_additional("b")
    assert state == DesiredState("a", ("c", "b"))
    assert state.without("c").without("c") == DesiredState("a", ("b",))


def test_the_state_is_read_as_it_was_written(settings: Settings) -> None:
    versions = DesiredStateFile(settings)
    assert versions.read() is None
    state = DesiredState("a", ("b",), ("c", "d"))
    settings.model_server_dir.mkdir(parents=True)
    versions.write(state)
    assert DesiredStateFile(settings).read() == state


def test_the_file_keeps_its_keys(settings: Settings) -> None:
    """Files written by earlier versions of MusicLab use the same keys."""
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


def test_missing_archives_are_omitted(settings: Settings) -> None:
    versions = DesiredStateFile(settings)
    settings.model_store.mkdir(parents=True)
    state = DesiredState("a", ("b", "c"))
    assert versions.archives(None) == versions.archives(state) == []
    for version in ("a", "c"):
        (settings.model_store / f"musiclab-{version}.mar").touch()
    names = [archive.name for archive in versions.archives(state)]
    assert names == ["musiclab-a.mar", "musiclab-c.mar"]


def test_only_one_command_at_a_time_changes_the_state(settings: Settings) -> None:
    with (
        DesiredStateFile(settings).exclusive(),
        pytest.raises(DeploymentError, match="another command"),
        DesiredStateFile(settings).exclusive(),
    ):
        pass
    with DesiredStateFile(settings).exclusive():
        pass


def test_setting_the_default_removes_additional_versions(settings: Settings) -> None:
    versions = DesiredStateFile(settings)
    versions.set_default("a")
    versions.write(DesiredState("a", ("b",)))
    versions.set_default("c")
    assert versions.read() == DesiredState("c", (), ("a",))
