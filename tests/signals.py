"""Sounds for tests, and measures of how alike two sounds are."""

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE = 24_000
SEGMENT_SAMPLES = 384_000

Samples = NDArray[np.float32]


def chord(seed: int, seconds: float = 16.0) -> Samples:
    """A few decaying tones below 4 kHz, different for each seed."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = [
        np.sin(2 * np.pi * random.uniform(80, 4000) * time + random.uniform(0, 6))
        * np.exp(-((time + random.uniform(0, 1)) % 1.0))
        for _ in range(6)
    ]
    mix: Samples = (0.08 * np.sum(tones, axis=0)).astype(np.float32)
    return mix


def audio_file(
    samples: NDArray[np.floating] | NDArray[np.int16],
    rate: int = SAMPLE_RATE,
    kind: str = "WAV",
    subtype: str = "PCM_16",
) -> bytes:
    """The samples [S] or [S, channels] as the bytes of a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def read_wav(data: bytes) -> Samples:
    """The samples of a WAV file's bytes, as float32."""
    samples: Samples = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    return samples


def band_limited(samples: NDArray[np.floating], limit_hz: float) -> NDArray[np.float64]:
    """The samples without what lies above a frequency."""
    spectrum = np.fft.rfft(samples.astype(np.float64))
    spectrum[np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE) > limit_hz] = 0
    limited: NDArray[np.float64] = np.fft.irfft(spectrum, len(samples))
    return limited


def si_sdr(reference: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019)."""
    reference = reference.astype(np.float64) - reference.mean()
    estimate = estimate.astype(np.float64) - estimate.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    distortion = estimate - target
    return float(10 * np.log10((target @ target) / (distortion @ distortion)))


def aligned_si_sdr(
    reference: NDArray[np.floating], estimate: NDArray[np.floating], within_s: float
) -> float:
    """SI-SDR where the estimate may lag behind the reference by up to `within_s` seconds."""
    most = round(within_s * SAMPLE_RATE)
    size = 2 * len(reference)
    spectra = np.fft.rfft(estimate, size) * np.conj(np.fft.rfft(reference, size))
    lag = int(np.argmax(np.fft.irfft(spectra)[: most + 1]))
    return si_sdr(reference[: len(reference) - lag], estimate[lag:])
