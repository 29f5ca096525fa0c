"""Reads server-sent events from a response of the requests library."""

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests

# The ID of an event, if it has one, and its JSON document.
Event = tuple[str | None, dict[str, Any]]


def read_events(response: requests.Response) -> Iterator[Event]:
    """Yields the server-sent events of a response as they arrive.

    Reads byte by byte, because reading a larger chunk would block until it is complete.
    """
    event_id, data = None, []
    for line in response.iter_lines(chunk_size=1):
        field, _, value = line.decode().partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield event_id, json.loads("\n".join(data))
            event_id, data = None, []


@contextmanager
def closed_at(response: requests.Response, deadline: float) -> Iterator[None]:
    """Closes a stream at the deadline, even while a read of the next event blocks."""
    if deadline == math.inf:
        yield
        return

    def cut() -> None:
        with suppress(OSError, RuntimeError, ValueError):  # already closed
            response.raw.shutdown()

    left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
    timer = threading.Timer(max(0.0, left), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
