"""Reads log files that contain one JSON object per line."""

import json
import time
from pathlib import Path
from typing import Any

LOGGED_WITHIN_S = 5.0

Line = dict[str, Any]


def log_lines(file: Path) -> list[Line]:
    """All complete lines, each of which must be JSON; an unfinished last line is ignored."""
    lines = []
    for text in file.read_text().split("\n")[:-1]:
        try:
            lines.append(json.loads(text))
        except ValueError:
            raise AssertionError(f"a line of {file} is not JSON: {text[:300]}") from None
    return lines


def lines_of(file: Path, job_id: str) -> list[Line]:
    """The lines of a job; waits for the first one, as log lines are written with a delay."""
    deadline = time.monotonic() + LOGGED_WITHIN_S
    while not (lines := [line for line in log_lines(file) if is_of(line, job_id)]):
        assert time.monotonic() < deadline, (
            f"no line of job {job_id} in {file} after {LOGGED_WITHIN_S:g} s; the last lines are "
            f"{log_lines(file)[-3:]}"
        )
        time.sleep(0.05)
    return lines


def is_of(line: Line, job_id: str) -> bool:
    return job_id == line.get("job_id") or job_id in line.get("job_ids", ())
