"""The window: the part of each track that is used."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import InputError

SECONDS = 16.0


@dataclass(frozen=True)
class Window:
    """A part of a track, in seconds from its start; at most 16 s of it are used."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Duration of the audio that is used."""
        return min(self.end - self.start, SECONDS)


def read_windows(fields: Mapping[str, str]) -> tuple[Window, Window]:
    """Reads the windows of both tracks from `start_time`, `end_time` and their `_1`, `_2` variants.

    The fields of a track take precedence over the common ones; `end_time` does not apply to a track
    with its own start time. Without an end time the window is 16 s long.

    Raises:
        InputError: `invalid_time` or `invalid_window`.
    """
    return _window(fields, "1"), _window(fields, "2")


def _window(fields: Mapping[str, str], track: str) -> Window:
    own_start, own_end = f"start_time_{track}", f"end_time_{track}"
    start_field = own_start if own_start in fields else "start_time"
    start = _seconds(fields, start_field) if start_field in fields else 0.0
    end_field = own_end
    if own_end not in fields and own_start not in fields:
        end_field = "end_time"
    if end_field not in fields:
        return Window(start, start + SECONDS)
    end = _seconds(fields, end_field)
    if end <= start:
        raise InputError(
            "invalid_window",
            f"{end_field} is {end:g} s; it must be after {start_field}, which is {start:g} s",
        )
    return Window(start, end)


def _seconds(fields: Mapping[str, str], field: str) -> float:
    try:
        seconds = float(fields[field])
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise InputError(
            "invalid_time",
            f"{field} is {fields[field][:40]!r}; it must be a number of seconds, 0 or more",
        )
    return seconds
