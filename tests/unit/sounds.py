"""Synthetic sounds, files of them, and how alike two sounds are."""

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 24_000

Samples = NDArray[np.float32]


def noise(samples: int, seed: int, below_hertz: float = 4500) -> Samples:
    """Band-limited noise [samples] with an rms of 0.1."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[np.fft.rfftfreq(samples, 1 / RATE) > below_hertz] = 0
    sound = np.fft.irfft(spectrum, samples)
    return np.asarray(sound * (0.1 / sound.std()), dtype=np.float32)


def tones(samples: int, *hertz: float) -> Samples:
    """The sum [samples] of one sine of amplitude 0.1 at each frequency."""
    seconds = np.arange(samples)[:, None] / RATE
    return np.asarray(0.1 * np.sin(2 * np.pi * np.array(hertz) * seconds).sum(1), dtype=np.float32)


def encoded(
    sound: NDArray[np.generic], file_format: str, subtype: str | None = None, rate: int = RATE
) -> bytes:
    """The sound [samples] or [samples, channels] as a file of that format."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=file_format, subtype=subtype)
    return file.getvalue()


def si_sdr(reference: Samples, estimate: Samples) -> float:
    """Scale-invariant signal-to-distortion ratio of an estimate, in dB."""
    wanted, heard = reference.astype(np.float64), estimate.astype(np.float64)
    target = wanted * (heard @ wanted) / (wanted @ wanted)
    return float(10 * np.log10((target**2).sum() / ((heard - target) ** 2).sum()))
