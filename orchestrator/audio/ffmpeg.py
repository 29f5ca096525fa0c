"""Decodes the first audio stream of an uploaded file with ffmpeg.

Uploads are untrusted. ffmpeg may read only the uploaded file, in one of six formats, and may not
open network connections. It decodes no pictures, and is killed when it takes too long or the caller
is cancelled. The kernel limits its memory and CPU time. Of the environment, which contains keys, it
inherits only LD_LIBRARY_PATH. It writes no files: the samples are read from a pipe.
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

# ffmpeg's demuxers for the allowed file extensions. Playlists, concat scripts and other formats
# that refer to further files are excluded.
FORMATS = "mp3,mov,wav,flac,ogg,aac"


@dataclass(frozen=True)
class Decoded:
    """Output of ffmpeg.

    Attributes:
        wanted: the requested samples, as PCM_16 mono at 24 kHz.
        samples: total number of decoded samples.
    """

    wanted: bytes
    samples: int


def find_ffmpeg() -> Path:
    """Finds ffmpeg: at IMAGEIO_FFMPEG_EXE, in the imageio-ffmpeg wheel, or else on PATH.

    The wheel is preferred because its ffmpeg is statically linked: it starts in 15 ms, while
    Debian's takes 75 ms, and it is started four times per job.

    Raises:
        FfmpegMissingError: ffmpeg was not found.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        name = get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: the wheel contains no ffmpeg
        name = "ffmpeg"
    found = shutil.which(name)
    if found is None:
        raise FfmpegMissingError(
            f"reading tracks needs ffmpeg, but {name!r} was not found; install it, or run "
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
    """Decodes a file; returns some of its samples and the total number.

    Args:
        purpose: sets the resource limits.
        source: the file to decode.
        before: ffmpeg options before the input.
        after: ffmpeg options after the input.
        wanted: number of samples to return.
        skipped: number of samples to skip before these.

    Raises:
        NotAudioError, TooSlowError, ConversionError: as `run_limited`.
    """
    check_readable(source)
    command = [
        *(str(find_ffmpeg()), "-nostdin", "-v", "error", "-max_alloc", str(MEMORY)),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS),
        # Continue after broken frames, and use all that can be decoded.
        *("-max_error_rate", "1", "-vn", "-sn", "-dn"),
        # By default there is one filter thread per CPU; the stacks of 16 nearly reach the memory
        # limit.
        *("-threads", "1", "-filter_threads", "1"),
        *before,
        *("-i", f"file:{source.resolve()}", "-map", "0:a:0"),
        *after,
        *("-ac", "1", "-ar", str(RATE), "-f", "s16le", "pipe:1"),
    ]
    return await run_limited(command, purpose, source, partial(_read_samples, skipped, wanted))


def check_readable(source: Path) -> None:
    """Checks that a file can be opened, so that a missing file does not raise NotAudioError.

    Raises:
        ConversionError: it cannot be opened.
    """
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
