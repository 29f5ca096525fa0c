"""How a serving process logs, seen in one of its own."""

import json
import subprocess
import sys
from typing import Any, Literal

import pytest

from orchestrator.observability.logs import logs_json
from orchestrator.settings import Settings
from tests.support.project import PROJECT

SAYS = """
import asyncio, logging, warnings, structlog
from orchestrator.observability.logs import configure_logging
from orchestrator.settings import Settings
configure_logging(Settings())
log = structlog.get_logger("orchestrator.somewhere")
"""


def said(code: str, **settings: str) -> str:
    """What a process writes to standard error that has configured its log."""
    environment = {f"MUSICLAB_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-c", SAYS + code],
        env={"PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr


def lines(code: str, **settings: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(code, **settings).splitlines()]


def test_a_line_begins_with_what_is_looked_for() -> None:
    code = """
structlog.contextvars.bind_contextvars(job_id="6f0c", model_version="v1")
log.info("job completed", timings={"wait": 0.5})
"""
    (line,) = lines(code)
    first = ["timestamp", "level", "logger", "job_id", "model_version", "event"]
    assert list(line) == [*first, "timings"]
    assert line.pop("timestamp").endswith("Z")
    assert list(line.values())[:5] == [
        "info",
        "orchestrator.somewhere",
        "6f0c",
        "v1",
        "job completed",
    ]


def test_an_error_is_structured_and_keeps_local_variables_to_itself() -> None:
    code = """
def fail():
    secret = "told to nobody"
    raise ValueError("broken")
try:
    fail()
except ValueError:
    log.exception("it failed")
"""
    (line,) = lines(code)
    (error,) = line["exception"]
    assert line["level"] == "error"
    assert (error["exc_type"], error["exc_value"]) == ("ValueError", "broken")
    assert error["frames"][-1]["name"] == "fail"
    assert "told to nobody" not in json.dumps(line)
    printed = said(code, log_format="console")
    assert "ValueError: broken" in printed
    assert "told to nobody" not in printed


def test_what_libraries_log_and_warn_of_has_the_same_form() -> None:
    code = """
structlog.contextvars.bind_contextvars(job_id="6f0c")
logging.getLogger("asyncio").error("slow %s", "task")
logging.getLogger("aiohttp.server").info("not told")
warnings.warn("old ways")
"""
    slow, warned = lines(code)
    assert (slow["logger"], slow["event"], slow["job_id"]) == ("asyncio", "slow task", "6f0c")
    assert (warned["level"], warned["logger"]) == ("warning", "py.warnings")
    assert "old ways" in warned["event"]


def test_the_level_is_that_of_the_settings() -> None:
    code = 'log.debug("one"); log.info("two"); log.warning("three")'
    for level, events in (
        ("debug", ["one", "two", "three"]),
        ("info", ["two", "three"]),
        ("warning", ["three"]),
    ):
        assert [line["event"] for line in lines(code, log_level=level)] == events


def test_on_a_terminal_lines_are_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(log_format: Literal["auto", "console", "json"]) -> bool:
        return logs_json(Settings(log_format=log_format))

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert [chosen("auto"), chosen("console"), chosen("json")] == [False, False, True]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert [chosen("auto"), chosen("console"), chosen("json")] == [True, False, True]
    printed = said('log.info("job completed", job_id="6f0c")', log_format="console")
    assert "job completed" in printed
    assert "job_id=6f0c" in printed
