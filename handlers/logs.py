"""Logging of a TorchServe worker: one JSON object per line on standard output.

TorchServe reads the worker's standard output and writes it to its own log.
"""

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

JOB_HEADER = "x-job-id"
METRIC = "[METRICS]"
# Clients with the inference key can send any header; values that cannot be a job ID are ignored.
JOB_ID = re.compile("[!-~]{1,64}")


class JsonFormatter(logging.Formatter):
    """Formats log records as JSON, including the keys passed as `extra={"fields": ...}`.

    log4j2.xml detects these lines by their first characters and does not reformat them.

    Args:
        version: the model version, added to every line.
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self._version = version

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        if event.startswith(METRIC):  # parsed by TorchServe, which removes it from the log
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
    """Switch logging to JSON, including the messages of TorchServe's own worker code."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter(version))


def job_id_in(headers: Mapping[str, Any]) -> str | None:
    """Return the job ID in a request's headers; None if it is missing or malformed."""
    for name, value in headers.items():
        if name.lower() == JOB_HEADER and isinstance(value, str) and JOB_ID.fullmatch(value):
            return value
    return None


def _chain(error: BaseException | None) -> list[dict[str, Any]]:
    """Describe an exception and its causes, outermost first."""
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
