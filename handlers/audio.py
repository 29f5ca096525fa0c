"""Decodes uploaded audio into segments of 384,000 samples and encodes waveforms as WAV."""

import io
import math

import numpy as np
import soundfile
from numpy.typing import NDArray

from handlers.codec.encodec_network import SAMPLE_RATE
from handlers.errors import InvalidRequestError
from handlers.pipeline import SEGMENT_SAMPLES

ACCEPTED_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG")
UNKNOWN_SIZE = 0xFFFFFFFF  # length field of a WAV written to a pipe
UNKNOWN_FRAMES = 2**63 - 1  # reported by soundfile for a FLAC written to a pipe
OGG_PAGE_HEADER, OGG_PAGE_FLAGS, OGG_LAST_PAGE = 27, 5, 4  # RFC 3533, section 6


def read_start_time(text: bytes, field: str) -> float:
    """Parse the form field `field` as a number of seconds.

    Raises:
        InvalidRequestError: `invalid_time`, unless it is a finite number of at least 0.
    """
    shown = text.decode(errors="replace")
    try:
        seconds = float(shown)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InvalidRequestError(
            "invalid_time",
            f"{field} is {shown[:40]!r}; it must be a number of seconds, 0 or more",
        )
    return seconds


def read_segment(data: bytes, field: str, start: float, start_field: str) -> NDArray[np.float32]:
    """Decode the 16 s window at `start` of a track: [384000], mono, within [-1, 1].

    Channels are averaged. A window that extends past the end of the track is padded with silence.

    Args:
        data: a whole WAV, FLAC or OGG file at 24 kHz.
        field: name of the form field that holds the file, for error messages.
        start: start of the window in seconds, finite and not negative.
        start_field: name of the form field that holds `start`, for error messages.

    Raises:
        InvalidRequestError: `empty_file`, `not_audio`, `unsupported_format`, `wrong_sample_rate`,
            `truncated_file`, `unknown_length`, `empty_audio`, `window_past_end` or `not_finite`.
    """
    if not data:
        raise InvalidRequestError("empty_file", f"{field} is an empty file; send {_expected()}")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, data, field, start, start_field)
            offset = round(start * SAMPLE_RATE)
            length = min(file.frames - offset, SEGMENT_SAMPLES)
            file.seek(offset)
            frames = file.read(length, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        if _is_truncated(data) or data.startswith(b"fLaC"):
            raise _truncated(field) from error
        raise InvalidRequestError(
            "not_audio", f"{field} is not a readable audio file; send {_expected()}"
        ) from error
    if len(frames) < length:
        raise _truncated(field)
    if not np.isfinite(frames).all():
        raise InvalidRequestError(
            "not_finite", f"{field} contains NaN or infinite samples; send finite samples"
        )
    segment = np.zeros(SEGMENT_SAMPLES, dtype=np.float32)
    segment[:length] = frames.clip(-1, 1).mean(axis=1)
    return segment


def write_wav(waveform: NDArray[np.float32]) -> bytes:
    """Encode a waveform [S], within [-1, 1], as a mono 24 kHz 16-bit PCM WAV file."""
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _check_header(
    file: soundfile.SoundFile, data: bytes, field: str, start: float, start_field: str
) -> None:
    if file.format not in ACCEPTED_FORMATS:
        raise InvalidRequestError(
            "unsupported_format", f"{field} has the format {file.format}; send {_expected()}"
        )
    if file.samplerate != SAMPLE_RATE:
        raise InvalidRequestError(
            "wrong_sample_rate",
            f"{field} has a sample rate of {file.samplerate} Hz; send {_expected()}",
        )
    if _is_truncated(data):
        raise _truncated(field)
    if file.frames == UNKNOWN_FRAMES:
        raise InvalidRequestError(
            "unknown_length",
            f"{field} does not state its length, which is the case for a FLAC written to a pipe; "
            "write it to a file, or send it as WAV",
        )
    if file.frames == 0:
        raise InvalidRequestError("empty_audio", f"{field} contains no samples; send at least one")
    if start * SAMPLE_RATE > file.frames - 0.5:  # rounds to a sample past the end
        raise InvalidRequestError(
            "window_past_end",
            f"{start_field} is {start:.10g} s, but {field} is only {file.frames / SAMPLE_RATE:g} s "
            "long; the window must start before the end of the track",
        )


def _is_truncated(data: bytes) -> bool:
    """Return True if a WAV or OGG file is cut off, which soundfile does not report."""
    if data[:4] in (b"RIFF", b"RIFX"):
        claimed = int.from_bytes(data[4:8], "little" if data[:4] == b"RIFF" else "big")
        return claimed != UNKNOWN_SIZE and claimed + 8 > len(data)
    if data[:4] == b"OggS":
        page = data.rfind(b"OggS")
        header = data[page : page + OGG_PAGE_HEADER]
        if len(header) < OGG_PAGE_HEADER or not header[OGG_PAGE_FLAGS] & OGG_LAST_PAGE:
            return True
        body = page + OGG_PAGE_HEADER
        segments = data[body : body + header[-1]]
        return len(segments) < header[-1] or body + len(segments) + sum(segments) > len(data)
    return False


def _truncated(field: str) -> InvalidRequestError:
    return InvalidRequestError(
        "truncated_file", f"{field} is truncated or damaged; send the complete file"
    )


def _expected() -> str:
    return f"a WAV, FLAC or OGG file at {SAMPLE_RATE} Hz"
