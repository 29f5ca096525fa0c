"""Reads the log of the TorchServe workers: one JSON object per line (see log4j2.xml)."""

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
        folder: directory of TorchServe's logs.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "model_log.log"

    def position(self) -> int:
        """Returns the size of the log in bytes, for use as `since` later."""
        return self._file.stat().st_size if self._file.exists() else 0

    def load_error(self, version: str | None = None, since: int = 0) -> str | None:
        """Returns why a worker could not load its archive; None if none has failed.

        Args:
            version: model version; None for any.
            since: position in bytes from which to read the log.
        """
        lines = self._lines(since, version)
        for line in lines:
            if line["event"].startswith(LOAD_FAILED):
                return str(line["event"]).removeprefix(LOAD_FAILED)
        # Errors other than RuntimeError make the worker exit at once.
        died = [line for line in lines if line["event"] == WORKER_DIED]
        return _first_exception(died) or _printed_exception(lines)

    def first_exception(self, version: str, since: int) -> str | None:
        """Returns the first exception that workers of a version logged after a position, if any."""
        return _first_exception(self._lines(since, version))

    def _lines(self, since: int, version: str | None) -> list[Line]:
        """Returns the lines of one version, or of any."""
        return [
            line
            for line in self._complete_lines(since)
            if version is None or line.get("model_version") == version
        ]

    def _complete_lines(self, since: int) -> Iterator[Line]:
        """Yields complete lines; starts at the beginning if the log was rotated meanwhile."""
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
    """Returns the last line of a traceback that a worker printed before its logging was set up.

    Lines of different workers are interleaved; lines of one worker are in order. TorchServe
    starts each worker's replacement in the same thread, so its lines may follow.
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
