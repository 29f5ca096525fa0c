"""What is in an uploaded file: whether it has audio, and how much."""

import asyncio
from pathlib import Path

from orchestrator.audio.ffmpeg import RATE, decode
from orchestrator.audio.ffmpeg_sandbox import PROBING
from orchestrator.errors import ConversionError, TrackError

COUNTED_WITHIN_S = 2.0  # enough for half an hour; four minutes take a quarter of a second


async def has_audio(source: Path) -> bool:
    """Whether at least one frame of the first audio stream can be decoded.

    Raises:
        NotAudioError: ffmpeg reached a limit, or crashed.
        TooSlowError: it takes too long.
        ConversionError: that could not be found out.
    """
    return (await decode(PROBING, source, [], ["-frames:a", "1"], wanted=1)).samples > 0


async def duration(source: Path) -> float | None:
    """Seconds of the first audio stream, counted by decoding it; None where that is not done soon.

    What a file states of its length is not asked for: it is wrong where the file is cut off.
    """
    try:
        async with asyncio.timeout(COUNTED_WITHIN_S):
            return (await decode(PROBING, source, [], [], wanted=0)).samples / RATE
    except (TimeoutError, TrackError, ConversionError):
        return None
