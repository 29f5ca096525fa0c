"""Audio files are read as segments of exactly 16 s, and waveforms are written as WAV files."""

import io

import numpy as np
import pytest
import soundfile

from handlers.audio import read_segment, write_wav
from tests.support.signals import RATE, SEGMENT, Samples, encoded, noise, si_sdr, tones

EXACT_FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAVEX", "PCM_16"),
    ("WAVEX", "PCM_24"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
]


def read(data: bytes, start: float = 0) -> Samples:
    return read_segment(data, "track1", start, "start_time_1")


def sixteen_bit_noise(samples: int, seed: int = 1) -> Samples:
    """Noise that each lossless format can hold exactly."""
    steps = np.random.default_rng(seed).integers(-20_000, 20_000, samples)
    return np.asarray(steps / 2**15, dtype=np.float32)


@pytest.mark.parametrize(("file_format", "subtype"), EXACT_FORMATS)
def test_lossless_samples_are_exact(file_format: str, subtype: str) -> None:
    sound = sixteen_bit_noise(3000)
    segment = read(encoded(sound, file_format, subtype))
    assert segment.shape == (SEGMENT,)
    assert segment.dtype == np.float32
    assert np.array_equal(segment[:3000], sound)


@pytest.mark.parametrize(("subtype", "least_db"), [("VORBIS", 20), ("OPUS", 15)])
def test_lossy_samples_are_similar_and_aligned(subtype: str, least_db: float) -> None:
    sound = tones(2 * RATE, 220, 441, 1000) + 0.2 * noise(2 * RATE, seed=2)
    segment = read(encoded(sound, "OGG", subtype))
    assert segment.shape == (SEGMENT,)
    assert si_sdr(sound, segment[: len(sound)]) > least_db
    assert not segment[len(sound) :].any()


@pytest.mark.parametrize(("file_format", "subtype"), EXACT_FORMATS)
@pytest.mark.parametrize("start", [0, 1 / RATE, 0.12345, 1.5, 2.999])
def test_the_window_starts_at_the_right_sample(
    file_format: str, subtype: str, start: float
) -> None:
    sound = sixteen_bit_noise(3 * RATE)
    expected = sound[int(start * RATE + 0.5) :]
    segment = read(encoded(sound, file_format, subtype), start)
    assert np.array_equal(segment[: len(expected)], expected)
    assert not segment[len(expected) :].any()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_the_window_of_a_lossy_file_starts_at_the_right_sample(subtype: str) -> None:
    data = encoded(noise(3 * RATE, seed=3), "OGG", subtype)
    late, whole = read(data, start=1.25), read(data)
    assert si_sdr(whole[int(1.25 * RATE) : 3 * RATE], late[: int(1.75 * RATE)]) > 40


@pytest.mark.parametrize("start", [0, 1.25, 4])
def test_a_longer_track_is_cut_to_the_window(start: float) -> None:
    sound = sixteen_bit_noise(20 * RATE)
    first = int(start * RATE)
    assert np.array_equal(read(encoded(sound, "WAV"), start), sound[first : first + SEGMENT])


def test_a_window_may_start_at_the_last_sample() -> None:
    sound = sixteen_bit_noise(1000)
    segment = read(encoded(sound, "WAV"), start=999 / RATE)
    assert segment[0] == sound[999] != 0
    assert not segment[1:].any()


@pytest.mark.parametrize(("file_format", "subtype"), [*EXACT_FORMATS, ("OGG", "VORBIS")])
def test_channels_are_averaged(file_format: str, subtype: str) -> None:
    left, right = tones(RATE, 440), tones(RATE, 1000)
    segment = read(encoded(np.stack([left, right], axis=1), file_format, subtype))
    assert si_sdr((left + right) / 2, segment[:RATE]) > 15
    assert segment[:RATE].std() == pytest.approx(((left + right) / 2).std(), rel=0.05)


def test_samples_beyond_full_scale_are_clipped_before_channels_are_averaged() -> None:
    sound = np.array([[3.0, 3.0], [-3.0, -1.5], [1.5, -0.5], [0.5, 0.25]], dtype=np.float32)
    segment = read(encoded(sound, "WAV", "FLOAT"))
    assert segment[:4].tolist() == [1, -1, 0.25, 0.375]


def from_a_pipe(wav: bytes) -> bytes:
    """The WAV as written by a program that cannot seek back to fill in the sizes."""
    data = wav.index(b"data")
    return b"RIFF" + b"\xff" * 4 + wav[8 : data + 4] + b"\xff" * 4 + wav[data + 8 :]


@pytest.mark.parametrize("start", [0, 0.5])
def test_a_wav_from_a_pipe_is_accepted(start: float) -> None:
    sound = sixteen_bit_noise(RATE)
    segment = read(from_a_pipe(encoded(sound, "WAV", "PCM_16")), start)
    expected = sound[int(start * RATE) :]
    assert np.array_equal(segment[: len(expected)], expected)
    assert not segment[len(expected) :].any()


@pytest.mark.parametrize("samples", [1, 1001, SEGMENT])
def test_a_waveform_is_written_as_a_mono_16_bit_wav(samples: int) -> None:
    waveform = sixteen_bit_noise(samples)
    data = write_wav(waveform)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.format, file.subtype) == ("WAV", "PCM_16")
        assert (file.samplerate, file.channels, file.frames) == (RATE, 1, samples)
        written = file.read(dtype="float32")
    assert np.abs(written - waveform).max() <= 2**-15
    assert len(data) == 44 + 2 * samples


def test_full_scale_does_not_wrap_around() -> None:
    written = read(write_wav(np.array([1, -1, 0.5], dtype=np.float32)))
    assert written[:3] == pytest.approx([1, -1, 0.5], abs=2**-15)
