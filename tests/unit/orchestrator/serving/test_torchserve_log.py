"""Load errors, read from the log that the workers of all versions share."""

import json
from pathlib import Path

import pytest

from orchestrator.serving.torchserve_log import WorkerLog

START = "s_name_part0=/tmp/.ts.sock, s_name_part1=9000, pid=7"
DIED = "Backend worker process died."
MISMATCH = "the SHA-256 of checkpoint.pt does not match the archive's manifest"
REJECTED = f"Failed to load model musiclab, exception {MISMATCH}"
TRACEBACK = ["Traceback (most recent call last):", '  File "x.py", line 1', "KeyError: 'a'"]
CHAINED = [*TRACEBACK, "", "During handling of the above exception, another exception occurred:"]


class ModelLog:
    """A worker log, its reader, and methods that append to it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "model_log.log"
        self.reader = WorkerLog(directory)

    def append_events(self, version: str, *events: str, port: int = 9000) -> None:
        for event in events:
            thread = f"W-{port}-musiclab_{version}-stdout"
            self.append_line({"thread": thread, "model_version": version, "event": event})

    def append_line(self, line: dict[str, object], end: str = "\n") -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(line) + end)


@pytest.fixture
def model_log(tmp_path: Path) -> ModelLog:
    return ModelLog(tmp_path)


def test_a_missing_log_has_no_error(model_log: ModelLog) -> None:
    assert model_log.reader.load_error() is None
    assert model_log.reader.position() == 0


def test_a_rejected_archive_is_reported_by_its_message(model_log: ModelLog) -> None:
    model_log.append_events("one", START, "Torch worker started.")
    assert model_log.reader.load_error() is None
    model_log.append_events("one", REJECTED, *TRACEBACK)
    assert model_log.reader.load_error() == MISMATCH


def test_a_printed_traceback_is_reported_by_its_last_line(model_log: ModelLog) -> None:
    model_log.append_events("one", START, DIED, *TRACEBACK[:2])
    assert model_log.reader.load_error() is None, "the traceback is incomplete"
    model_log.append_events("one", TRACEBACK[2])
    assert model_log.reader.load_error() == "KeyError: 'a'"
    model_log.append_events("one", START, "Torch worker started.")
    assert model_log.reader.load_error() == "KeyError: 'a'", (
        "lines of the next worker are not an error"
    )


def test_the_last_error_of_a_chain_is_reported(model_log: ModelLog) -> None:
    model_log.append_events("one", START, DIED, *CHAINED, *TRACEBACK[:2], "ValueError: b")
    assert model_log.reader.load_error() == "ValueError: b"


def test_a_structured_error_is_reported_by_its_type_and_value(model_log: ModelLog) -> None:
    raised = [{"exc_type": "ValueError", "exc_value": "b"}, {"exc_type": "KeyError"}]
    model_log.append_line({"model_version": "one", "event": DIED, "exception": raised})
    assert model_log.reader.load_error() == "ValueError: b"


def test_only_errors_of_the_requested_version_are_reported(model_log: ModelLog) -> None:
    model_log.append_events("a_1.0-b", REJECTED)
    assert model_log.reader.load_error("a_1.0") is None
    assert model_log.reader.load_error("a_1.0-b") is not None


def test_interleaved_lines_of_two_workers_are_separated(model_log: ModelLog) -> None:
    model_log.append_events("one", START, DIED, *TRACEBACK[:2])
    model_log.append_events("one", START, "Torch worker started.", port=9001)
    assert model_log.reader.load_error() is None
    model_log.append_events("one", TRACEBACK[2])
    assert model_log.reader.load_error() == "KeyError: 'a'"


def test_only_errors_after_the_position_are_reported(model_log: ModelLog) -> None:
    model_log.append_events("one", REJECTED)
    before = model_log.reader.position()
    assert model_log.reader.load_error(since=before) is None
    model_log.append_events("one", REJECTED)
    assert model_log.reader.load_error(since=before) is not None


def test_a_replaced_log_is_read_from_its_beginning(model_log: ModelLog) -> None:
    model_log.append_events("one", START, START, START)
    before = model_log.reader.position()
    model_log.file.unlink()
    model_log.append_events("one", REJECTED)
    assert model_log.reader.load_error(since=before) is not None


def test_incomplete_and_foreign_lines_are_skipped(model_log: ModelLog) -> None:
    model_log.file.write_text("2026-11-22T19:59:13 - what an earlier MusicLab wrote\n[]\n")
    model_log.append_line({"model_version": "one", "event": REJECTED}, end="")
    assert model_log.reader.load_error() is None
