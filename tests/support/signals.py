"""Synthetic audio signals, encoding and decoding, and signal comparison."""

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 24_000
SEGMENT = 16 * RATE

Samples = NDArray[np.float32]


def noise(samples: int, seed: int, below_hertz: float = 4500) -> Samples:
    """Band-limited noise [samples] with an RMS of 0.1."""
    sound = band_limited(np.random.default_rng(seed).standard_normal(samples), below_hertz)
    return np.asarray(sound * (0.1 / sound.std()), dtype=np.float32)


def tones(samples: int, *hertz: float) -> Samples:
    """The sum [samples] of one sine of amplitude 0.1 at each frequency."""
    seconds = np.arange(samples)[:, None] / RATE
    return np.asarray(0.1 * np.sin(2 * np.pi * np.array(hertz) * seconds).sum(1), dtype=np.float32)


def encoded(
    sound: NDArray[np.generic],
    file_format: str = "WAV",
    subtype: str | None = None,
    rate: int = RATE,
) -> bytes:
    """A signal [samples] or [samples, channels], encoded in the given file format."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=file_format, subtype=subtype)
    return file.getvalue()


def decoded(wav: bytes) -> Samples:
    """The samples of a WAV file."""
    return np.asarray(soundfile.read(io.BytesIO(wav), dtype="float32")[0], dtype=np.float32)


def band_limited(sound: NDArray[np.floating], below_hertz: float) -> NDArray[np.float64]:
    """The signal without frequencies above a limit."""
    spectrum = np.fft.rfft(sound.astype(np.float64))
    spectrum[np.fft.rfftfreq(len(sound), 1 / RATE) > below_hertz] = 0
    return np.asarray(np.fft.irfft(spectrum, len(sound)), dtype=np.float64)


def si_sdr(reference: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio of an estimate, in dB (Le Roux et al., 2019)."""
    s, x = reference.astype(np.float64), estimate.astype(np.float64)
    target = s * (x @ s) / (s @ s)
    return float(10 * np.log10((target**2).sum() / ((x - target) ** 2).sum()))


def aligned_si_sdr(
    reference: NDArray[np.floating], estimate: NDArray[np.floating], within: float
) -> float:
    """SI-SDR of an estimate that may lag behind the reference by up to `within` seconds."""
    size = 2 * len(reference)
    spectra = np.fft.rfft(estimate, size) * np.conj(np.fft.rfft(reference, size))
    lag = int(np.argmax(np.fft.irfft(spectra)[: round(within * RATE) + 1]))
    return si_sdr(reference[: len(reference) - lag], estimate[lag:])
