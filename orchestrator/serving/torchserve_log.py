"""Reads the log of the model's workers, one JSON object a line (see log4j2.xml)."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from orchestrator.archives.archive import MODEL_NAME

LOAD_FAILED = f"Failed to load model {MODEL_NAME}, exception "
WORKER_STARTS = "s_name_part0="
WORKER_DIED = "Backend worker process died."
TRACEBACK = (" ", "Traceback", WORKER_DIED)

Line = dict[str, Any]


class WorkerLog:
    """The log of the workers of all versions.

    Args:
        folder: of TorchServe's logs.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "model_log.log"

    def position(self) -> int:
        """The size of the log in bytes, from which a later `load_error` may read on."""
        return self._file.stat().st_size if self._file.exists() else 0

    def load_error(self, version: str | None = None, since: int = 0) -> str | None:
        """Why a worker could not load its archive; None while none failed.

        Args:
            version: of the model; None for any.
            since: position from which the log is read, in bytes.
        """
        lines = self._lines(since, version)
        for line in lines:
            if line["event"].startswith(LOAD_FAILED):
                return str(line["event"]).removeprefix(LOAD_FAILED)
        # Other errors than RuntimeError end the worker at once.
        died = [line for line in lines if line["event"] == WORKER_DIED]
        return _first_exception(died) or _printed_exception(lines)

    def first_exception(self, version: str, since: int) -> str | None:
        """The first exception that workers of a version logged after a position, if any."""
        return _first_exception(self._lines(since, version))

    def _lines(self, since: int, version: str | None) -> list[Line]:
        """The lines of one version, or of any."""
        return [
            line
            for line in self._complete_lines(since)
            if version is None or line.get("model_version") == version
        ]

    def _complete_lines(self, since: int) -> Iterator[Line]:
        """The lines that end in a newline; from the start where the log was replaced meanwhile."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(since if since <= self.position() else 0)
            for text in file.read().split(b"\n")[:-1]:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and isinstance(line.get("event"), str):
                    yield line


def _first_exception(lines: list[Line]) -> str | None:
    for line in lines:
        if isinstance(line.get("exception"), list):
            error = line["exception"][0]
            return f"{error['exc_type']}: {error['exc_value']}"
    return None


def _printed_exception(lines: list[Line]) -> str | None:
    """The last line of the traceback that a worker printed line by line, before it could log.

    The lines of several workers are interleaved, those of one are in order, and the next worker of
    a thread may have started since.
    """
    threads = sorted((line for line in lines if "thread" in line), key=lambda line: line["thread"])
    for _, printed in groupby(threads, key=lambda line: line["thread"]):
        died, last = False, ""
        for event in (line["event"] for line in printed):
            if event.startswith(WORKER_STARTS):
                if last:
                    return last
                died = False
            died = died or event == WORKER_DIED
            last = event if died and not event.startswith(TRACEBACK) else ""
        if last:
            return last
    return None
