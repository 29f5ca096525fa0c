"""Server-sent events, read from a response of requests."""

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests

# The document of an event, and its id where it has one.
Event = tuple[str | None, dict[str, Any]]


def read_events(answer: requests.Response) -> Iterator[Event]:
    """The server-sent events of an answer, as they come.

    Lines are read byte by byte, because reading more than there is would wait for the rest.
    """
    event_id, data = None, []
    for line in answer.iter_lines(chunk_size=1):
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
def closed_at(answer: requests.Response, deadline: float) -> Iterator[None]:
    """End a stream at the deadline, even while it is waited for its next event."""
    if deadline == math.inf:
        yield
        return

    def cut() -> None:
        with suppress(OSError, RuntimeError, ValueError):  # it has ended by itself
            answer.raw.shutdown()

    left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
    timer = threading.Timer(max(0.0, left), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
