"""Conversions by ffmpeg, and what has to be so after each of them."""

from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from orchestrator.audio.cutting import cut_window
from orchestrator.audio.window import Window
from orchestrator.errors import TrackError
from tests.support.signals import Samples, decoded
from tests.support.tracks import lag

Refusal = TypeVar("Refusal", bound=TrackError)

LATE = Window(200_000, 200_016)


async def cut(source: Path, start: float, target: Path, seconds: float = 16) -> Samples:
    wav = await cut_window(source, Window(start, start + seconds), target)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == wav
    return decoded(wav)


async def refusal(kind: type[Refusal], source: Path, target: Path, start: float = 0) -> Refusal:
    """The error of a conversion that leaves nothing behind."""
    with pytest.raises(kind) as caught:
        await cut_window(source, Window(start, start + 16), target)
    assert type(caught.value) is kind
    assert not any(target.parent.iterdir())
    assert str(source.parent) not in str(caught.value)
    return caught.value


def children() -> list[psutil.Process]:
    """The running ffmpegs of this process, which may have started servers as well."""
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def lies_right(whole: Samples, sound: Samples, start: float) -> None:
    later, alike, alike_at_first = lag(whole, sound, start)
    assert abs(later) < 0.001, (start, later)  # 0.025 is promised
    assert alike > 0.9 and alike_at_first > 0.9, (start, alike, alike_at_first)
