"""Why a model did not load, out of the log of all versions' workers."""

import json
from pathlib import Path

import pytest

from orchestrator.serving.torchserve_log import WorkerLog

START = "s_name_part0=/tmp/.ts.sock, s_name_part1=9000, pid=7"
DIED = "Backend worker process died."
REFUSED = "Failed to load model musiclab, exception checkpoint.pt is not the file of its manifest"
TRACEBACK = ["Traceback (most recent call last):", '  File "x.py", line 1', "KeyError: 'a'"]
CHAINED = [*TRACEBACK, "", "During handling of the above exception, another exception occurred:"]


class Said:
    """A log and what writes it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "model_log.log"
        self.log = WorkerLog(folder)

    def printed(self, version: str, *events: str, port: int = 9000) -> None:
        for event in events:
            thread = f"W-{port}-musiclab_{version}-stdout"
            self.write({"thread": thread, "model_version": version, "event": event})

    def write(self, line: dict[str, object], end: str = "\n") -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(line) + end)


@pytest.fixture
def said(tmp_path: Path) -> Said:
    return Said(tmp_path)


def test_without_a_log_nothing_is_at_fault(said: Said) -> None:
    assert said.log.load_error() is None
    assert said.log.position() == 0


def test_a_refused_archive_is_named_by_its_sentence(said: Said) -> None:
    said.printed("one", START, "Torch worker started.")
    assert said.log.load_error() is None
    said.printed("one", REFUSED, *TRACEBACK)
    assert said.log.load_error() == "checkpoint.pt is not the file of its manifest"


def test_a_traceback_of_printed_lines_is_named_by_its_end(said: Said) -> None:
    said.printed("one", START, DIED, *TRACEBACK[:2])
    assert said.log.load_error() is None, "the traceback is not all there yet"
    said.printed("one", TRACEBACK[2])
    assert said.log.load_error() == "KeyError: 'a'"
    said.printed("one", START, "Torch worker started.")
    assert said.log.load_error() == "KeyError: 'a'", "the next worker's lines are no fault"


def test_of_a_chain_of_errors_the_last_counts(said: Said) -> None:
    said.printed("one", START, DIED, *CHAINED, *TRACEBACK[:2], "ValueError: b")
    assert said.log.load_error() == "ValueError: b"


def test_a_structured_error_is_named_by_its_type_and_value(said: Said) -> None:
    raised = [{"exc_type": "ValueError", "exc_value": "b"}, {"exc_type": "KeyError"}]
    said.write({"model_version": "one", "event": DIED, "exception": raised})
    assert said.log.load_error() == "ValueError: b"


def test_only_the_asked_version_counts(said: Said) -> None:
    said.printed("a_1.0-b", REFUSED)
    assert said.log.load_error("a_1.0") is None
    assert said.log.load_error("a_1.0-b") is not None


def test_tracebacks_of_two_workers_mix(said: Said) -> None:
    said.printed("one", START, DIED, *TRACEBACK[:2])
    said.printed("one", START, "Torch worker started.", port=9001)
    assert said.log.load_error() is None
    said.printed("one", TRACEBACK[2])
    assert said.log.load_error() == "KeyError: 'a'"


def test_only_what_was_said_since_counts(said: Said) -> None:
    said.printed("one", REFUSED)
    before = said.log.position()
    assert said.log.load_error(since=before) is None
    said.printed("one", REFUSED)
    assert said.log.load_error(since=before) is not None


def test_a_log_that_was_begun_anew_is_read_from_its_beginning(said: Said) -> None:
    said.printed("one", START, START, START)
    before = said.log.position()
    said.file.unlink()
    said.printed("one", REFUSED)
    assert said.log.load_error(since=before) is not None


def test_half_a_line_and_lines_of_others_are_passed_over(said: Said) -> None:
    said.file.write_text("2026-11-22T19:59:13 - what an earlier MusicLab wrote\n[]\n")
    said.write({"model_version": "one", "event": REFUSED}, end="")
    assert said.log.load_error() is None
