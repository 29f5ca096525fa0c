"""Processes on one host use separate scratch directories."""

from pathlib import Path

from orchestrator.storage.scratch import exclusive_folder


def test_each_holder_gets_its_own_empty_directory(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with exclusive_folder(root) as first:
        (first / "music_1").mkdir()
        with exclusive_folder(root) as second:
            assert second != first
            assert (first / "music_1").is_dir()
    with exclusive_folder(root) as after:
        assert after == first
        assert list(after.iterdir()) == []
