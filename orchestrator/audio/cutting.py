"""Cuts a window out of an uploaded track and converts it to WAV."""

import asyncio
import io
import wave
from pathlib import Path

from orchestrator.audio.ffmpeg import RATE, SAMPLE_BYTES, check_readable, decode
from orchestrator.audio.ffmpeg_sandbox import CONVERTING
from orchestrator.audio.seeking import PREROLL_S, SEEK_AFTER_S, has_one_stream
from orchestrator.audio.window import Window
from orchestrator.errors import ConversionError, NotAudioError, WindowPastEndError
from orchestrator.filesystem import atomic_write

# Longer than any upload. ffmpeg does not accept arbitrarily large times.
LONGEST_S = 1e7


async def cut_window(source: Path, window: Window, target: Path) -> bytes:
    """Writes the window of the first audio stream as 24 kHz mono PCM_16 WAV.

    The file is shorter than the window if the track ends within it. On failure nothing is written.

    Returns:
        The content of the file.

    Raises:
        NotAudioError: no audio can be decoded within the limits.
        WindowPastEndError: the window starts after the end of the audio.
        TooSlowError: decoding takes too long.
        ConversionError: any other failure.
    """
    start = min(window.start, LONGEST_S)
    wanted = round(window.seconds * RATE)
    decoded = None
    check_readable(source)
    if start > SEEK_AFTER_S and await asyncio.to_thread(has_one_stream, source):
        before = ["-ss", f"{start - PREROLL_S:.6f}"]
        after = ["-ss", f"{PREROLL_S}", "-t", f"{window.seconds:.6f}"]
        decoded = await decode(CONVERTING, source, before, after, wanted=wanted)
    if decoded is None or not decoded.wanted:
        # Also used if seeking finds nothing: the file may be too damaged for seeking, and for a
        # track that ends before the window this determines the true length, which may differ from
        # the header. Start and end are counted in samples, because timestamps also advance over
        # lost frames.
        after = ["-af", "asetpts=N/SR/TB", "-t", f"{start + window.seconds:.6f}"]
        skipped = round(start * RATE)
        decoded = await decode(CONVERTING, source, [], after, wanted=wanted, skipped=skipped)
    if not decoded.samples:
        raise NotAudioError(f"{source.name} contains no audio that can be decoded")
    if not decoded.wanted:
        raise WindowPastEndError(decoded.samples / RATE)
    # Written on the event loop: it is less than 1 MB, and cancellation cannot interrupt it.
    wav = _wav(decoded.wanted)
    try:
        # Not hidden, so that a file left by a killed process is deleted with the job's other files.
        with atomic_write(target, hidden=False) as part:
            part.write_bytes(wav)
    except OSError as error:
        raise ConversionError(f"{target.name} cannot be written: {error.strerror}") from None
    return wav


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, SAMPLE_BYTES, RATE, 0, "NONE", "not compressed"))
        wav.writeframes(samples)
    return file.getvalue()
