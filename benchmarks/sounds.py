"""Sounds with names, the same on every run, and how far one sound lies from another."""

import math

import numpy as np
from numpy.typing import NDArray

from tests.support.signals import RATE, SEGMENT, Samples

LOUDNESS = 0.1  # rms

Wave = NDArray[np.float64]


def plucked_strings() -> Samples:
    """Arpeggios of plucked strings, four notes a second (Karplus and Strong, 1983)."""
    chance = np.random.default_rng(1)
    sound = np.zeros(SEGMENT)
    arpeggio = (110.0, 164.81, 220.0, 261.63, 329.63, 261.63, 220.0, 164.81)
    for note in range(64):
        string = _string(arpeggio[note % 8] * (1.0, 0.8, 4 / 3, 1.5)[note // 8 % 4], 1.5, chance)
        _add(sound, string, note / 4)
    return _as_loud(sound)


def drums() -> Samples:
    """A beat of 120 a minute: a falling sine, bursts of noise long and short."""
    chance = np.random.default_rng(2)
    sound = np.zeros(SEGMENT)
    for eighth in range(64):
        _add(sound, 0.3 * _burst(0.03, chance), eighth / 4)
        if eighth % 4 == 0:
            time = np.arange(RATE // 2) / RATE
            _add(sound, np.sin(40 * np.exp(-time * 12)) * np.exp(-time * 9), eighth / 4)
        if eighth % 4 == 2:
            _add(sound, 0.7 * _burst(0.15, chance), eighth / 4)
    return _as_loud(sound)


def chords() -> Samples:
    """A chord every two seconds, each note of eight harmonics, that swells and dies away."""
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
    return _as_loud(sound)


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
    """Both tracks of a pair, 16 s at 24 kHz each."""
    first, second = PAIRS[name]
    return SOUNDS[first](), SOUNDS[second]()


def snr_db(reference: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Signal-to-noise ratio in dB, where the noise is all in which the estimate differs."""
    wanted, heard = reference.astype(np.float64), estimate.astype(np.float64)
    noise = ((heard - wanted) ** 2).sum()
    return math.inf if noise == 0 else float(10 * np.log10((wanted**2).sum() / noise))


def _string(hertz: float, seconds: float, chance: np.random.Generator) -> Wave:
    """A string: each period is the one before, smoothed and a little quieter."""
    period = chance.uniform(-1, 1, round(RATE / hertz))
    periods = []
    for _ in range(math.ceil(seconds * RATE / len(period))):
        periods.append(period)
        period = 0.498 * (period + np.roll(period, 1))
    return np.concatenate(periods)


def _burst(seconds: float, chance: np.random.Generator) -> Wave:
    """Noise that dies away, by a factor of e in so many seconds."""
    time = np.arange(round(5 * seconds * RATE)) / RATE
    return np.asarray(chance.uniform(-1, 1, len(time)) * np.exp(-time / seconds))


def _add(sound: Wave, event: Wave, at_seconds: float) -> None:
    """Mix an event into a sound, as much of it as there is room for."""
    there = sound[round(at_seconds * RATE) :][: len(event)]
    there += event[: len(there)]


def _as_loud(sound: Wave) -> Samples:
    return np.asarray(sound * (LOUDNESS / np.sqrt((sound**2).mean())), dtype=np.float32)
