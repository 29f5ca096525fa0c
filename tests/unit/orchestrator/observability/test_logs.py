"""The logs of a server process, tested in a subprocess."""

import json
import subprocess
import sys
from typing import Any, Literal

import pytest

from orchestrator.observability.logs import logs_json
from orchestrator.settings import Settings
from tests.support.project import PROJECT

SETUP = """
import asyncio, logging, warnings, structlog
from orchestrator.observability.logs import configure_logging
from orchestrator.settings import Settings
configure_logging(Settings())
log = structlog.get_logger("orchestrator.somewhere")
"""


def stderr_of(code: str, **settings: str) -> str:
    """The standard error of a process that configures its logging and then runs `code`."""
    environment = {f"MUSICLAB_{name.upper()}": value for name, value in settings.items()}
    completed = subprocess.run(
        [sys.executable, "-c", SETUP + code],
        env={"PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout == ""
    return completed.stderr


def lines(code: str, **settings: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr_of(code, **settings).splitlines()]


def test_a_line_starts_with_the_most_searched_keys() -> None:
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


def test_an_exception_is_structured_and_omits_local_variables() -> None:
    code = """
def fail():
    secret = "a private value"
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
    assert "a private value" not in json.dumps(line)
    printed = stderr_of(code, log_format="console")
    assert "ValueError: broken" in printed
    assert "a private value" not in printed


def test_library_logs_and_warnings_have_the_same_format() -> None:
    code = """
structlog.contextvars.bind_contextvars(job_id="6f0c")
logging.getLogger("asyncio").error("slow %s", "task")
logging.getLogger("aiohttp.server").info("not logged")
warnings.warn("deprecated")
"""
    slow, warned = lines(code)
    assert (slow["logger"], slow["event"], slow["job_id"]) == ("asyncio", "slow task", "6f0c")
    assert (warned["level"], warned["logger"]) == ("warning", "py.warnings")
    assert "deprecated" in warned["event"]


def test_the_level_follows_the_settings() -> None:
    code = 'log.debug("one"); log.info("two"); log.warning("three")'
    for level, events in (
        ("debug", ["one", "two", "three"]),
        ("info", ["two", "three"]),
        ("warning", ["three"]),
    ):
        assert [line["event"] for line in lines(code, log_level=level)] == events


def test_lines_are_human_readable_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(log_format: Literal["auto", "console", "json"]) -> bool:
        return logs_json(Settings(log_format=log_format))

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert [chosen("auto"), chosen("console"), chosen("json")] == [False, False, True]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert [chosen("auto"), chosen("console"), chosen("json")] == [True, False, True]
    printed = stderr_of('log.info("job completed", job_id="6f0c")', log_format="console")
    assert "job completed" in printed
    assert "job_id=6f0c" in printed
