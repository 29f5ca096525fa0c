"""Conversions by ffmpeg, and the conditions that hold after each of them."""

from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from orchestrator.audio.cutting import cut_window
from orchestrator.audio.window import Window
from orchestrator.errors import TrackError
from tests.support.signals import Samples, decoded
from tests.support.tracks import lag

Rejection = TypeVar("Rejection", bound=TrackError)

LATE = Window(200_000, 200_016)


async def cut(source: Path, start: float, target: Path, seconds: float = 16) -> Samples:
    """Convert a window, check that nothing else is written, and return its samples."""
    wav = await cut_window(source, Window(start, start + seconds), target)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == wav
    return decoded(wav)


async def rejection(
    kind: type[Rejection], source: Path, target: Path, start: float = 0
) -> Rejection:
    """Return the error of a failing conversion, which leaves no file and reveals no path."""
    with pytest.raises(kind) as caught:
        await cut_window(source, Window(start, start + 16), target)
    assert type(caught.value) is kind
    assert not any(target.parent.iterdir())
    assert str(source.parent) not in str(caught.value)
    return caught.value


def children() -> list[psutil.Process]:
    """The ffmpeg processes started by this process, without other children such as servers."""
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def assert_aligned(whole: Samples, sound: Samples, start: float) -> None:
    """Check that a window starts within 1 ms of `start` in the track and has the same content."""
    offset, similarity, similarity_at_start = lag(whole, sound, start)
    assert abs(offset) < 0.001, (start, offset)
    assert similarity > 0.9 and similarity_at_start > 0.9, (start, similarity, similarity_at_start)
