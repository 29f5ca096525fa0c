"""Finds audio in an uploaded file and cuts a window out of it, with ffmpeg.

An upload is a stranger's file: ffmpeg opens nothing but it, with six kinds of container and no
network, decodes no pictures, and is killed when it takes too long or nobody waits for it any more.
The kernel limits its memory and CPU time, and it gets no environment, which holds keys. It only
reads. The samples come through a pipe, so every file written here is written whole.
"""

import asyncio
import io
import shutil
import wave
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.audio.sandbox import CHUNK, CONVERTING, MEMORY, PROBING, Purpose, run_limited
from orchestrator.audio.seeking import PREROLL_S, SEEK_AFTER_S, has_one_stream
from orchestrator.audio.window import Window
from orchestrator.errors import (
    ConversionError,
    FfmpegMissingError,
    NotAudioError,
    TrackError,
    WindowPastEndError,
)
from orchestrator.filesystem import atomic_write

RATE = 24_000
SAMPLE_BYTES = 2
COUNTED_WITHIN_S = 2.0  # enough for half an hour; four minutes take a quarter of a second

# Longer than any upload. ffmpeg does not understand arbitrarily large times.
LONGEST_S = 1e7

# Containers, by the names of ffmpeg's demuxers, in which the allowed extensions come. Playlists,
# concat scripts and whatever else names further files to open are not among them.
FORMATS = "mp3,mov,wav,flac,ogg,aac"


@dataclass(frozen=True)
class _Decoded:
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


async def has_audio(source: Path) -> bool:
    """Whether at least one frame of the first audio stream can be decoded.

    Raises:
        NotAudioError: ffmpeg reached a limit, or crashed.
        TooSlowError: it takes too long.
        ConversionError: that could not be found out.
    """
    return (await _decode(PROBING, source, [], ["-frames:a", "1"], wanted=1)).samples > 0


async def duration(source: Path) -> float | None:
    """Seconds of the first audio stream, counted by decoding it; None where that is not done soon.

    What a file states of its length is not asked for: it is wrong where the file is cut off.
    """
    try:
        async with asyncio.timeout(COUNTED_WITHIN_S):
            return (await _decode(PROBING, source, [], [], wanted=0)).samples / RATE
    except (TimeoutError, TrackError, ConversionError):
        return None


async def convert(source: Path, window: Window, target: Path) -> bytes:
    """Write the window of the first audio stream as 24 kHz mono PCM_16 WAV, and return the same.

    It is shorter where the track ends inside the window. On failure nothing is written.

    Raises:
        NotAudioError: there is no audio that can be decoded, within the limits.
        WindowPastEndError: the window starts where the audio has ended.
        TooSlowError: it takes too long.
        ConversionError: anything else went wrong.
    """
    start = min(window.start, LONGEST_S)
    wanted = round(window.seconds * RATE)
    decoded = None
    _check_readable(source)
    if start > SEEK_AFTER_S and await asyncio.to_thread(has_one_stream, source):
        before = ["-ss", f"{start - PREROLL_S:.6f}"]
        after = ["-ss", f"{PREROLL_S}", "-t", f"{window.seconds:.6f}"]
        decoded = await _decode(CONVERTING, source, before, after, wanted=wanted)
    if decoded is None or not decoded.wanted:
        # Also where seeking finds nothing: the file may be too broken for it, and of a track that
        # ends earlier this tells the true length, which its header may not.
        # Its end is counted in samples, as its start is: timestamps go on where frames are lost.
        after = ["-af", "asetpts=N/SR/TB", "-t", f"{start + window.seconds:.6f}"]
        skipped = round(start * RATE)
        decoded = await _decode(CONVERTING, source, [], after, wanted=wanted, skipped=skipped)
    if not decoded.samples:
        raise NotAudioError(f"{source.name} holds no audio that can be decoded")
    if not decoded.wanted:
        raise WindowPastEndError(decoded.samples / RATE)
    # Written on the event loop: less than 1 MB, and no cancellation can come in between.
    wav = _wav(decoded.wanted)
    try:
        with atomic_write(target) as part:
            part.write_bytes(wav)
    except OSError as error:
        raise ConversionError(f"{target.name} cannot be written: {error.strerror}") from None
    return wav


async def _decode(
    purpose: Purpose,
    source: Path,
    before: list[str],
    after: list[str],
    *,
    wanted: int,
    skipped: int = 0,
) -> _Decoded:
    """Run ffmpeg with options before and after its input; keep some samples and count them all."""
    _check_readable(source)
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


def _check_readable(source: Path) -> None:
    """Keeps a file that is missing from being taken for one without audio."""
    try:
        source.open("rb").close()
    except OSError as error:
        raise ConversionError(f"{source.name} cannot be read: {error.strerror}") from None


async def _read_samples(skipped: int, wanted: int, stream: asyncio.StreamReader) -> _Decoded:
    first, last = skipped * SAMPLE_BYTES, (skipped + wanted) * SAMPLE_BYTES
    kept, count = bytearray(), 0
    while chunk := await stream.read(CHUNK):
        kept += chunk[max(0, first - count) : max(0, last - count)]
        count += len(chunk)
    return _Decoded(bytes(kept), count // SAMPLE_BYTES)


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, SAMPLE_BYTES, RATE, 0, "NONE", "not compressed"))
        wav.writeframes(samples)
    return file.getvalue()
