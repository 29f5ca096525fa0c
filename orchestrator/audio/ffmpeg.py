"""Decodes the first audio stream of an uploaded file with ffmpeg.

An upload is a stranger's file: ffmpeg opens nothing but it, with six kinds of container and no
network, decodes no pictures, and is killed when it takes too long or nobody waits for it any more.
The kernel limits its memory and CPU time, and it gets no environment, which holds keys. It only
reads. The samples come through a pipe, so every file written here is written whole.
"""

import asyncio
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.audio.ffmpeg_sandbox import CHUNK, MEMORY, Purpose, run_limited
from orchestrator.errors import ConversionError, FfmpegMissingError

RATE = 24_000
SAMPLE_BYTES = 2

# Containers, by the names of ffmpeg's demuxers, in which the allowed extensions come. Playlists,
# concat scripts and whatever else names further files to open are not among them.
FORMATS = "mp3,mov,wav,flac,ogg,aac"


@dataclass(frozen=True)
class Decoded:
    """What ffmpeg decoded: the wanted samples, PCM_16 mono at 24 kHz, and how many came in all."""

    wanted: bytes
    samples: int


def find_ffmpeg() -> Path:
    """The ffmpeg of the imageio-ffmpeg wheel (or what IMAGEIO_FFMPEG_EXE names), or else of PATH.

    In this order because the wheel's is one file without libraries to load: it starts in 15 ms,
    where Debian's takes 75 ms, four times a job.

    Raises:
        FfmpegMissingError: there is neither.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        name = get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: a wheel without ffmpeg in it
        name = "ffmpeg"
    found = shutil.which(name)
    if found is None:
        raise FfmpegMissingError(
            f"reading tracks needs ffmpeg, and there is none called {name!r}; install it, or "
            "`pip install imageio-ffmpeg`"
        )
    return Path(found)


async def decode(
    purpose: Purpose,
    source: Path,
    before: list[str],
    after: list[str],
    *,
    wanted: int,
    skipped: int = 0,
) -> Decoded:
    """Run ffmpeg with options before and after its input; keep some samples and count them all."""
    check_readable(source)
    command = [
        *(str(find_ffmpeg()), "-nostdin", "-v", "error", "-max_alloc", str(MEMORY)),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS),
        # Broken frames are no reason to give up: what can be decoded is used.
        *("-max_error_rate", "1", "-vn", "-sn", "-dn"),
        # Else there is a filter thread for each CPU, and the stacks of 16 nearly reach the limit.
        *("-threads", "1", "-filter_threads", "1"),
        *before,
        *("-i", f"file:{source.resolve()}", "-map", "0:a:0"),
        *after,
        *("-ac", "1", "-ar", str(RATE), "-f", "s16le", "pipe:1"),
    ]
    return await run_limited(command, purpose, source, partial(_read_samples, skipped, wanted))


def check_readable(source: Path) -> None:
    """Keeps a file that is missing from being taken for one without audio."""
    try:
        source.open("rb").close()
    except OSError as error:
        raise ConversionError(f"{source.name} cannot be read: {error.strerror}") from None


async def _read_samples(skipped: int, wanted: int, stream: asyncio.StreamReader) -> Decoded:
    first, last = skipped * SAMPLE_BYTES, (skipped + wanted) * SAMPLE_BYTES
    kept, count = bytearray(), 0
    while chunk := await stream.read(CHUNK):
        kept += chunk[max(0, first - count) : max(0, last - count)]
        count += len(chunk)
    return Decoded(bytes(kept), count // SAMPLE_BYTES)
