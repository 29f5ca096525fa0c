"""Processes of one host do not meet in their scratch folders."""

from pathlib import Path

from orchestrator.storage.scratch import exclusive_folder


def test_each_holder_has_a_folder_of_its_own_and_an_empty_one(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with exclusive_folder(root) as first:
        (first / "music_1").mkdir()
        with exclusive_folder(root) as second:
            assert second != first
            assert (first / "music_1").is_dir()
    with exclusive_folder(root) as after:
        assert after == first
        assert list(after.iterdir()) == []
