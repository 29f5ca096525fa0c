"""Every rejection of a track has an error code and a message that names the field."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from handlers.audio import read_segment, read_start_time
from handlers.errors import InvalidRequestError
from tests.support.signals import RATE, encoded, noise

SOUND = noise(RATE // 2, seed=1)
SAME_EXAMPLES_EACH_TIME = settings(derandomize=True, database=None, deadline=None, max_examples=200)


def rejection(data: bytes, code: str, start: float = 0) -> str:
    """The message of the error that rejects track 2."""
    with pytest.raises(InvalidRequestError) as rejected:
        read_segment(data, "track2", start, "start_time_2")
    assert rejected.value.code == code
    assert str(rejected.value) == rejected.value.detail
    assert "track2" in rejected.value.detail
    return rejected.value.detail


def test_an_empty_file_is_rejected() -> None:
    assert "24000 Hz" in rejection(b"", "empty_file")


@pytest.mark.parametrize(
    "data",
    [b"x", b"not audio " * 100, bytes(1000), b"\x89PNG\r\n\x1a\n" + bytes(100), b"RIF"],
    ids=["byte", "text", "zeros", "PNG", "part of a magic number"],
)
def test_data_other_than_audio_is_rejected(data: bytes) -> None:
    assert "WAV, FLAC or OGG" in rejection(data, "not_audio")


@pytest.mark.parametrize("file_format", ["AIFF", "AU", "CAF", "W64", "RF64", "MP3"])
def test_an_unsupported_format_is_rejected(file_format: str) -> None:
    message = rejection(encoded(SOUND, file_format), "unsupported_format")
    assert file_format in message
    assert "WAV, FLAC or OGG" in message


@pytest.mark.parametrize(
    ("file_format", "rate"), [("WAV", 44_100), ("FLAC", 48_000), ("OGG", 22_050), ("WAV", 16_000)]
)
def test_a_wrong_sample_rate_is_rejected(file_format: str, rate: int) -> None:
    message = rejection(encoded(SOUND, file_format, rate=rate), "wrong_sample_rate")
    assert f"{rate} Hz" in message
    assert "24000 Hz" in message


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG"])
def test_audio_without_samples_is_rejected(file_format: str) -> None:
    data = encoded(SOUND[:0], file_format)
    if data:
        assert "no samples" in rejection(data, "empty_audio")
    else:  # libsndfile writes no header if there are no samples
        rejection(data, "empty_file")


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG"])
@pytest.mark.parametrize("start", [0.5, 0.51, 30, 1e9, 1e300])
def test_a_window_past_the_end_is_rejected(file_format: str, start: float) -> None:
    message = rejection(encoded(SOUND, file_format), "window_past_end", start)
    assert f"start_time_2 is {start:.10g} s" in message
    assert "0.5 s long" in message


def test_a_window_past_any_possible_end_is_rejected() -> None:
    rejection(encoded(SOUND, "WAV"), "window_past_end", 1e308)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_rejected(value: float) -> None:
    sound = np.stack([SOUND, SOUND], axis=1)
    sound[1000, 1] = value
    assert "NaN or infinite" in rejection(encoded(sound, "WAV", "FLOAT"), "not_finite")


def cuts(data: bytes) -> st.SearchStrategy[int]:
    """Lengths of a truncated file that is long enough for its format to be recognized."""
    return st.integers(4, len(data) - 1)


WAV, WAV_FLOAT, WAVEX = (
    encoded(SOUND, "WAV", "PCM_16"),
    encoded(SOUND, "WAV", "FLOAT"),
    encoded(SOUND, "WAVEX", "PCM_24"),
)
FLAC = encoded(SOUND, "FLAC")
OGG_FILES = [encoded(noise(2 * RATE, seed=2), "OGG", subtype) for subtype in ("VORBIS", "OPUS")]


@pytest.mark.parametrize("data", [WAV, WAV_FLOAT, WAVEX, FLAC], ids=["16", "float", "ex", "flac"])
@given(choice=st.data())
@SAME_EXAMPLES_EACH_TIME
def test_a_truncated_file_is_rejected(data: bytes, choice: st.DataObject) -> None:
    rejection(data[: choice.draw(cuts(data))], "truncated_file")


def test_a_truncated_big_endian_wav_is_rejected() -> None:
    file = io.BytesIO()
    soundfile.write(file, SOUND, RATE, format="WAV", endian="BIG")
    rejection(file.getvalue()[:10_000], "truncated_file")


def test_a_flac_of_unknown_length_is_rejected() -> None:
    # The low 36 bits of bytes 18 to 25, in STREAMINFO, are the number of samples; 0 is unknown.
    head = int.from_bytes(FLAC[18:26], "big") >> 36 << 36
    rejection(FLAC[:18] + head.to_bytes(8, "big") + FLAC[26:], "unknown_length")


@pytest.mark.parametrize("data", OGG_FILES, ids=["vorbis", "opus"])
@given(choice=st.data())
@SAME_EXAMPLES_EACH_TIME
def test_a_truncated_ogg_file_is_rejected(data: bytes, choice: st.DataObject) -> None:
    cut = choice.draw(cuts(data))
    assume(all(not end <= cut < end + 4 for end in page_ends(data)))
    rejection(data[:cut], "truncated_file")


@pytest.mark.parametrize("extra", [0, 1, 3])
@pytest.mark.parametrize("data", OGG_FILES, ids=["vorbis", "opus"])
def test_an_ogg_file_truncated_between_pages_is_rejected(data: bytes, extra: int) -> None:
    *ends, whole = page_ends(data)
    assert whole == len(data)
    rejection(data[: ends[-1] + extra], "truncated_file")


@pytest.mark.parametrize("data", [WAV, FLAC, *OGG_FILES], ids=["wav", "flac", "vorbis", "opus"])
@given(damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1))
@SAME_EXAMPLES_EACH_TIME
def test_a_damaged_file_is_read_or_rejected(data: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for position, value in damage:
        damaged[position % len(data)] = value
    try:
        segment = read_segment(bytes(damaged), "track2", 0, "start_time_2")
    except InvalidRequestError as error:
        assert "track2" in error.detail
    else:
        assert np.abs(segment).max() <= 1


def page_ends(data: bytes) -> list[int]:
    """The end of each page of an Ogg file; a page header is 27 bytes plus the segment sizes."""
    ends, page = [], 0
    while page < len(data):
        assert data[page : page + 4] == b"OggS"
        segments = data[page + 27 : page + 27 + data[page + 26]]
        page += 27 + len(segments) + sum(segments)
        ends.append(page)
    return ends


@pytest.mark.parametrize(
    ("text", "seconds"), [(b"0", 0), (b"12", 12), (b"1.25", 1.25), (b" 3.5\n", 3.5), (b"1e1", 10)]
)
def test_a_time_is_read_as_seconds(text: bytes, seconds: float) -> None:
    assert read_start_time(text, "start_time_1") == seconds


@pytest.mark.parametrize(
    "text", [b"", b" ", b"x", b"nan", b"inf", b"-inf", b"-1", b"-0.001", b"1:30", b"1,5", b"\xff"]
)
def test_an_invalid_time_is_rejected(text: bytes) -> None:
    with pytest.raises(InvalidRequestError) as rejected:
        read_start_time(text, "start_time_1")
    assert rejected.value.code == "invalid_time"
    assert "start_time_1 is " in rejected.value.detail
    assert "0 or more" in rejected.value.detail


def test_a_long_value_is_abbreviated_in_the_message() -> None:
    with pytest.raises(InvalidRequestError) as rejected:
        read_start_time(b"9x" * 10_000, "start_time_1")
    assert len(rejected.value.detail) < 200
