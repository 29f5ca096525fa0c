"""The form fields of one request are read as the two segments of a job."""

from typing import Any

import numpy as np
import pytest

from handlers.errors import InvalidRequestError
from handlers.job_request import read_job
from tests.support.signals import RATE, SEGMENT, Samples, encoded, noise

SOUND1, SOUND2 = noise(RATE, seed=1), noise(2 * RATE, seed=2)
TRACK1, TRACK2 = encoded(SOUND1, "WAV", "FLOAT"), encoded(SOUND2, "WAV", "FLOAT")
TRACKS = {"track1": TRACK1, "track2": TRACK2}


def padded(sound: Samples) -> Samples:
    return np.pad(sound, (0, SEGMENT - len(sound)))


def rejection(fields: dict[str, Any], code: str) -> str:
    with pytest.raises(InvalidRequestError) as rejected:
        read_job(fields)
    assert rejected.value.code == code
    return rejected.value.detail


def test_all_fields_are_used() -> None:
    job = read_job({"start_time_2": b"1.5", "start_time_1": b"0.25", **TRACKS})
    assert job.shape == (2, 1, SEGMENT)
    assert job.dtype == np.float32
    assert np.array_equal(job[0, 0], padded(SOUND1[RATE // 4 :]))
    assert np.array_equal(job[1, 0], padded(SOUND2[RATE * 3 // 2 :]))


def test_windows_start_at_0_by_default() -> None:
    job = read_job(TRACKS)
    assert np.array_equal(job[0, 0], padded(SOUND1))
    assert np.array_equal(job[1, 0], padded(SOUND2))


@pytest.mark.parametrize("half_a_second", [b"0.5", bytearray(b"0.5"), "0.5", 0.5])
def test_a_time_may_already_be_decoded(half_a_second: object) -> None:
    job = read_job({**TRACKS, "start_time_2": half_a_second})
    assert np.array_equal(job[1, 0], padded(SOUND2[RATE // 2 :]))


@pytest.mark.parametrize("one_second", [b"1", "1", 1])
def test_an_integer_time_may_already_be_decoded(one_second: object) -> None:
    job = read_job({**TRACKS, "start_time_2": one_second})
    assert np.array_equal(job[1, 0], padded(SOUND2[RATE:]))


def test_a_track_may_be_a_bytearray() -> None:
    job = read_job({"track1": bytearray(TRACK1), "track2": bytearray(TRACK2)})
    assert np.array_equal(job, read_job(TRACKS))


@pytest.mark.parametrize("field", ["track1", "track2"])
def test_a_missing_field_is_rejected(field: str) -> None:
    fields = {name: data for name, data in TRACKS.items() if name != field}
    assert rejection(fields, "missing_field").startswith(f"{field} is missing")


def test_an_empty_form_is_rejected() -> None:
    assert "track1 and track2" in rejection({}, "missing_field")


@pytest.mark.parametrize("field", ["track3", "start_time", "Track1", "body", ""])
def test_an_unknown_field_is_rejected(field: str) -> None:
    message = rejection({**TRACKS, field: b"0"}, "unknown_field")
    assert repr(field) in message
    for known in ("track1", "track2", "start_time_1", "start_time_2"):
        assert known in message


@pytest.mark.parametrize("field", ["start_time_1", "start_time_2"])
@pytest.mark.parametrize(
    "time",
    [b"NaN", "NaN", float("nan"), b"inf", float("inf"), b"-1", -1, b"x", b"", "", None, {"s": 1}],
    ids=repr,
)
def test_an_invalid_time_is_rejected(field: str, time: object) -> None:
    assert rejection({**TRACKS, field: time}, "invalid_time").startswith(f"{field} is ")


@pytest.mark.parametrize("field", ["track1", "track2"])
@pytest.mark.parametrize("text", ["some text", {"a": 1}, 7])
def test_a_text_field_is_rejected_as_a_track(field: str, text: object) -> None:
    assert rejection({**TRACKS, field: text}, "not_audio").startswith(field)


@pytest.mark.parametrize(
    ("number", "seconds"), [("1", "1 s"), ("2", "2 s")], ids=["track 1", "track 2"]
)
def test_each_time_belongs_to_its_track(number: str, seconds: str) -> None:
    message = rejection({**TRACKS, f"start_time_{number}": b"5"}, "window_past_end")
    assert f"start_time_{number} is 5 s" in message
    assert f"track{number} is only {seconds} long" in message
