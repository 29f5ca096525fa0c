"""A worker's log: one JSON object a line on its standard output, from where TorchServe has it."""

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

JOB_HEADER = "x-job-id"
METRIC = "[METRICS]"
# Whoever holds the inference key may send anything; no job has an id like that.
JOB_ID = re.compile("[!-~]{1,64}")


class JsonFormatter(logging.Formatter):
    """Records as JSON, with what they were given as `extra={"fields": ...}`.

    log4j2.xml knows such a line by its beginning and leaves it as it is.

    Args:
        version: of the model, for every line.
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self._version = version

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        if event.startswith(METRIC):  # not for people: TorchServe takes it out of the log
            return event
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "timestamp": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "model_version": self._version,
            "event": event,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = _chain(record.exc_info[1])
        return json.dumps(line, default=str)


def log_json(version: str) -> None:
    """Log JSON from now on, what the server's own code logs too."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter(version))


def job_id_in(headers: Mapping[str, Any]) -> str | None:
    """The job that a request is of; None where it names none."""
    for name, value in headers.items():
        if name.lower() == JOB_HEADER and isinstance(value, str) and JOB_ID.fullmatch(value):
            return value
    return None


def _chain(error: BaseException | None) -> list[dict[str, Any]]:
    """The error and then what led to it."""
    chain = []
    while error is not None:
        frames = [
            {"filename": frame.filename, "lineno": frame.lineno, "name": frame.name}
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        described = {"exc_type": type(error).__name__, "exc_value": str(error), "frames": frames}
        chain.append(described)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain
