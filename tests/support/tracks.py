"""Tracks in all formats, encoded by ffmpeg, and the measured position of a window in a track."""

import functools
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from tests.support.signals import RATE, Samples, encoded, noise

BLOCK_S = 15
SECONDS = 4 * BLOCK_S

TWO_CHANNELS = ("-ac", "2", "-ar", "44100")
VBR = ("-c:a", "libmp3lame", "-q:a", "6")
AAC = ("-c:a", "aac", "-b:a", "96k")
FRAGMENTS = ("-movflags", "empty_moov+frag_keyframe", "-frag_duration", "2000000")
KINDS: dict[str, tuple[str, ...]] = {
    "cbr.mp3": (*TWO_CHANNELS, "-c:a", "libmp3lame", "-b:a", "128k"),
    "vbr.mp3": (*TWO_CHANNELS, *VBR),
    "vbr_without_xing.mp3": (*TWO_CHANNELS, *VBR, "-write_xing", "0", "-id3v2_version", "0"),
    "edit_list.m4a": (*TWO_CHANNELS, *AAC),
    "no_edit_list.m4a": (*TWO_CHANNELS, *AAC, "-use_editlist", "0"),
    "fragments.m4a": (*TWO_CHANNELS, *AAC, *FRAGMENTS),
    "bare_aac.m4a": (*TWO_CHANNELS, *AAC, "-f", "adts"),
    "stereo.wav": TWO_CHANNELS,
    "48_khz.flac": ("-ac", "2", "-ar", "48000", "-c:a", "flac"),
    "vorbis.ogg": (*TWO_CHANNELS, "-c:a", "libvorbis", "-q:a", "2"),
    "opus.ogg": ("-ac", "1", "-ar", "48000", "-c:a", "libopus", "-b:a", "48k"),
}


def ffmpeg(*arguments: str | Path, program: Path | None = None) -> bytes:
    """Run ffmpeg, or the given program, and return its standard output."""
    chosen = program or shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()
    command = [str(chosen), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


@functools.cache
def full_decode(program: Path, track: Path) -> Samples:
    """A whole track as 24 kHz mono, decoded without seeking."""
    options = ("-map", "0:a:0", "-ac", "1", "-ar", str(RATE), "-f", "s16le", "-")
    # One thread: with several, ffmpeg 5.1 loses frames at the boundary of concatenated FLACs.
    output = ffmpeg("-threads", "1", "-i", track, *options, program=program)
    samples = np.frombuffer(output, "<i2")
    return np.asarray(samples / 2**15, dtype=np.float32)


def varying_noise(seconds: int) -> Samples:
    """Noise whose bandwidth and loudness change, so that a variable bit rate varies."""
    bandwidths, loudness = (4500, 1500, 3000, 600), (1.0, 0.2, 2.0)
    blocks = [
        noise(BLOCK_S * RATE, seed, below_hertz=bandwidths[seed % 4]) * loudness[seed % 3]
        for seed in range(-(-seconds // BLOCK_S))
    ]
    return np.asarray(np.concatenate(blocks)[: seconds * RATE], dtype=np.float32)


def make_track(folder: Path, kind: str, sound: Samples) -> Path:
    """Encode a signal in the given format; all tracks in one directory contain the same signal."""
    source = folder / "sound.wav"
    if not source.exists():
        source.write_bytes(encoded(sound))
    track = folder / kind
    ffmpeg("-i", source, *KINDS[kind], track)
    return track


def make_endless_wav(path: Path, size: int = 2**31) -> Path:
    """Days of silence in a sparse file, which takes minutes to decode."""
    header = bytearray(encoded(np.zeros(0, dtype=np.float32), subtype="PCM_U8", rate=8000))
    header[4:8], header[40:44] = ((size - skipped).to_bytes(4, "little") for skipped in (8, 44))
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return path


def lag(whole: Samples, piece: Samples, start: float) -> tuple[float, float, float]:
    """Locate a window in a track: its offset from `start` in seconds, and two correlations there.

    The correlations are those of the whole window and of its first quarter of a second.
    """
    expected, around = round(start * RATE), RATE
    first = max(0, expected - around)
    there = whole[first : expected + len(piece) + around]
    size = 1 << (len(there) + len(piece)).bit_length()  # powers of two are the fastest
    spectrum = np.fft.rfft(there, size) * np.conj(np.fft.rfft(piece, size))
    at = int(np.argmax(np.fft.irfft(spectrum, size)[: len(there)]))
    found = there[at : at + len(piece)]
    beginning = slice(RATE // 4)
    return (
        (first + at - expected) / RATE,
        correlation(found, piece[: len(found)]),
        correlation(found[beginning], piece[: len(found)][beginning]),
    )


def correlation(one: Samples, other: Samples) -> float:
    """The correlation of two sounds, from -1 to 1."""
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
