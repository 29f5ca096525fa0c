"""File locks and atomic writes."""

import time
from pathlib import Path
from threading import Timer

import pytest

from orchestrator.filesystem import atomic_write, lock, temporary_path


def test_a_lock_is_exclusive_and_released_on_close(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert lock(first)
        assert not lock(second)
        began = time.monotonic()
        assert not lock(second, timeout_s=0.3)
        assert time.monotonic() - began >= 0.3
        first.close()
        assert lock(second)


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_locking_waits_for_the_lock_to_be_released(tmp_path: Path, timeout_s: float | None) -> None:
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert lock(first)
        Timer(0.2, first.close).start()
        assert lock(second, timeout_s)
        assert first.closed


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_when_the_block_succeeds(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path, durable=durable) as part:
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_unchanged_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="on purpose"), atomic_write(path, hidden=False) as part:
        part.write_text("new")
        assert not part.name.startswith(".")
        raise ValueError("on purpose")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_directory_is_not_created(tmp_path: Path) -> None:
    missing = tmp_path / "deleted" / "file"
    with pytest.raises(FileNotFoundError), atomic_write(missing) as part:
        part.write_text("new")
    assert not missing.parent.exists()
    assert temporary_path(missing) != temporary_path(missing)
