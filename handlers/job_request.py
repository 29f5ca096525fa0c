"""Converts the form fields of a request into the two segments of a job."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.audio import read_segment, read_start_time
from handlers.errors import InvalidRequestError

TRACK_FIELDS = ("track1", "track2")
START_FIELDS = ("start_time_1", "start_time_2")
FIELDS = TRACK_FIELDS + START_FIELDS
RAW_BODY = "body"  # the key under which TorchServe passes a body that is not a form


def read_job(fields: Mapping[str, Any]) -> NDArray[np.float32]:
    """Decode the segments of both tracks: [2, 1, 384000].

    Args:
        fields: `track1` and `track2` (audio files), optionally `start_time_1` and `start_time_2`
            (seconds, default 0), as TorchServe passes them.

    Raises:
        InvalidRequestError: a required field is missing, or a field is unknown or invalid.
    """
    if fields.keys() == {RAW_BODY}:
        fields = {}
    for field in fields:
        if field not in FIELDS:
            raise InvalidRequestError(
                "unknown_field", f"unknown field {field!r}; the fields are {', '.join(FIELDS)}"
            )
    for field in TRACK_FIELDS:
        if field not in fields:
            raise InvalidRequestError(
                "missing_field",
                f"{field} is missing; send track1 and track2 as files in a multipart form",
            )
    segments = [
        read_segment(
            _bytes(fields[track]),
            track,
            read_start_time(_bytes(fields.get(start, b"0")), start),
            start,
        )
        for track, start in zip(TRACK_FIELDS, START_FIELDS, strict=True)
    ]
    return np.stack(segments)[:, None]


def _bytes(value: Any) -> bytes:
    """Return the bytes of a field; TorchServe decodes fields whose content type is text or JSON."""
    return bytes(value) if isinstance(value, bytes | bytearray) else str(value).encode()
