"""Named, reproducible test sounds, and the signal-to-noise ratio between two sounds."""

import math

import numpy as np
from numpy.typing import NDArray

from tests.support.signals import RATE, SEGMENT, Samples

LOUDNESS = 0.1  # rms

Wave = NDArray[np.float64]


def plucked_strings() -> Samples:
    """Arpeggios of plucked strings, four notes per second (Karplus and Strong, 1983)."""
    rng = np.random.default_rng(1)
    sound = np.zeros(SEGMENT)
    arpeggio = (110.0, 164.81, 220.0, 261.63, 329.63, 261.63, 220.0, 164.81)
    for note in range(64):
        string = _string(arpeggio[note % 8] * (1.0, 0.8, 4 / 3, 1.5)[note // 8 % 4], 1.5, rng)
        _add(sound, string, note / 4)
    return _normalize(sound)


def drums() -> Samples:
    """A beat at 120 bpm: a sine with falling pitch, and long and short bursts of noise."""
    rng = np.random.default_rng(2)
    sound = np.zeros(SEGMENT)
    for eighth in range(64):
        _add(sound, 0.3 * _burst(0.03, rng), eighth / 4)
        if eighth % 4 == 0:
            time = np.arange(RATE // 2) / RATE
            _add(sound, np.sin(40 * np.exp(-time * 12)) * np.exp(-time * 9), eighth / 4)
        if eighth % 4 == 2:
            _add(sound, 0.7 * _burst(0.15, rng), eighth / 4)
    return _normalize(sound)


def chords() -> Samples:
    """A chord every two seconds that swells and fades; each note has eight harmonics."""
    time = np.arange(2 * RATE) / RATE
    swell = np.sin(np.pi * time / 2) ** 0.5
    sound = np.zeros(SEGMENT)
    for bar in range(8):
        root = (130.81, 174.61, 196.0, 110.0)[bar % 4]
        chord = sum(
            np.sin(2 * np.pi * root * step * harmonic * time) / harmonic
            for step in (1, 5 / 4, 3 / 2, 2)
            for harmonic in range(1, 9)
        )
        _add(sound, swell * chord, 2 * bar)
    return _normalize(sound)


SOUNDS = {"plucked strings": plucked_strings, "drums": drums, "chords": chords}

# Track 1 and track 2 of a job, by the name of the pair.
PAIRS = {
    f"{first} + {second}": (first, second)
    for first, second in (
        ("plucked strings", "drums"),
        ("drums", "chords"),
        ("chords", "plucked strings"),
    )
}


def pair(name: str) -> tuple[Samples, Samples]:
    """Return both tracks of a pair, each 16 s at 24 kHz."""
    first, second = PAIRS[name]
    return SOUNDS[first](), SOUNDS[second]()


def snr_db(reference: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Return the signal-to-noise ratio in dB; the noise is the difference of the two sounds."""
    expected, actual = reference.astype(np.float64), estimate.astype(np.float64)
    noise = ((actual - expected) ** 2).sum()
    return math.inf if noise == 0 else float(10 * np.log10((expected**2).sum() / noise))


def _string(hertz: float, seconds: float, rng: np.random.Generator) -> Wave:
    """Synthesize a string: each period is the previous one, smoothed and slightly attenuated."""
    period = rng.uniform(-1, 1, round(RATE / hertz))
    periods = []
    for _ in range(math.ceil(seconds * RATE / len(period))):
        periods.append(period)
        period = 0.498 * (period + np.roll(period, 1))
    return np.concatenate(periods)


def _burst(seconds: float, rng: np.random.Generator) -> Wave:
    """Noise that decays by a factor of e in `seconds`."""
    time = np.arange(round(5 * seconds * RATE)) / RATE
    return np.asarray(rng.uniform(-1, 1, len(time)) * np.exp(-time / seconds))


def _add(sound: Wave, event: Wave, at_seconds: float) -> None:
    """Mix an event into a sound; the part past the end is dropped."""
    target = sound[round(at_seconds * RATE) :][: len(event)]
    target += event[: len(target)]


def _normalize(sound: Wave) -> Samples:
    return np.asarray(sound * (LOUDNESS / np.sqrt((sound**2).mean())), dtype=np.float32)
