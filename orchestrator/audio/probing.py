"""Probes uploaded files: presence and duration of audio."""

import asyncio
from pathlib import Path

from orchestrator.audio.ffmpeg import RATE, decode
from orchestrator.audio.ffmpeg_sandbox import PROBING
from orchestrator.errors import ConversionError, TrackError

DURATION_TIMEOUT_S = 2.0  # enough for 30 minutes of audio; four minutes take 0.25 s


async def has_audio(source: Path) -> bool:
    """Returns whether at least one frame of the first audio stream can be decoded.

    Raises:
        NotAudioError: ffmpeg reached a limit, or crashed.
        TooSlowError: decoding takes too long.
        ConversionError: the file could not be probed.
    """
    return (await decode(PROBING, source, [], ["-frames:a", "1"], wanted=1)).samples > 0


async def duration(source: Path) -> float | None:
    """Returns the duration of the first audio stream in seconds, measured by decoding it.

    Returns None if decoding fails or exceeds DURATION_TIMEOUT_S. The duration in the file's header
    is not used, because it is wrong for truncated files.
    """
    try:
        async with asyncio.timeout(DURATION_TIMEOUT_S):
            return (await decode(PROBING, source, [], [], wanted=0)).samples / RATE
    except (TimeoutError, TrackError, ConversionError):
        return None
