"""Reads logs of one JSON object a line."""

import json
import time
from pathlib import Path
from typing import Any

SAID_WITHIN_S = 5.0

Line = dict[str, Any]


def log_lines(file: Path) -> list[Line]:
    """Every line, of which each has to be JSON; one that is still being written is left out."""
    lines = []
    for text in file.read_text().split("\n")[:-1]:
        try:
            lines.append(json.loads(text))
        except ValueError:
            raise AssertionError(f"a line of {file} is not JSON: {text[:300]}") from None
    return lines


def lines_of(file: Path, job_id: str) -> list[Line]:
    """Those of a job, as soon as there are any: a log lags behind what it tells."""
    deadline = time.monotonic() + SAID_WITHIN_S
    while not (lines := [line for line in log_lines(file) if is_of(line, job_id)]):
        assert time.monotonic() < deadline, (
            f"nothing of {job_id} is in {file} after {SAID_WITHIN_S:g} s; the last lines are "
            f"{log_lines(file)[-3:]}"
        )
        time.sleep(0.05)
    return lines


def is_of(line: Line, job_id: str) -> bool:
    return job_id == line.get("job_id") or job_id in line.get("job_ids", ())
