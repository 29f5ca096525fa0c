"""The window of each track that the time fields select."""

import pytest

from orchestrator.audio.window import Window, read_windows
from orchestrator.errors import InputError


@pytest.mark.parametrize(
    ("fields", "first", "second"),
    [
        ({}, (0, 16), (0, 16)),
        ({"start_time": "0.0", "end_time": "16.0"}, (0, 16), (0, 16)),
        ({"start_time": "5"}, (5, 21), (5, 21)),
        ({"end_time": "3"}, (0, 3), (0, 3)),
        ({"start_time_1": "10"}, (10, 26), (0, 16)),
        ({"start_time_1": "10", "start_time": "5", "end_time": "8"}, (10, 26), (5, 8)),
        ({"end_time_2": "4", "end_time": "8"}, (0, 8), (0, 4)),
        ({"start_time": "2", "end_time_2": "4"}, (2, 18), (2, 4)),
        ({"start_time_2": "1e1", "end_time_2": "11.5"}, (0, 16), (10, 11.5)),
    ],
)
def test_times_of_one_track_override_those_of_both(
    fields: dict[str, str], first: tuple[float, float], second: tuple[float, float]
) -> None:
    assert read_windows(fields) == (Window(*first), Window(*second))


@pytest.mark.parametrize("field", ["start_time", "end_time", "start_time_1", "end_time_2"])
@pytest.mark.parametrize("value", ["abc", "", "nan", "inf", "-1", "-inf", "0x10", "1,5"])
def test_a_field_with_an_invalid_time_is_named(field: str, value: str) -> None:
    with pytest.raises(InputError) as rejected:
        read_windows({field: value})
    assert rejected.value.code == "invalid_time"
    assert field in str(rejected.value)
    assert repr(value) in str(rejected.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"start_time": "5", "end_time": "5"},
        {"start_time_1": "5", "end_time_1": "4.5"},
        {"start_time": "9", "end_time_2": "8"},
        {"end_time": "0"},
    ],
)
def test_a_field_with_an_end_before_the_start_is_named(fields: dict[str, str]) -> None:
    with pytest.raises(InputError) as rejected:
        read_windows(fields)
    assert rejected.value.code == "invalid_window"
    assert any(field in str(rejected.value) for field in fields)
