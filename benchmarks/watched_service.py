"""Runs `musiclab` and records the longest callbacks of its event loop.

    python -m benchmarks.watched_service REPORT up

When the process exits, writes the callbacks that took the most CPU time to the file REPORT. It uses
CPU time because wall time depends on other processes on a busy machine.
"""

import asyncio
import heapq
import json
import sys
import time
from pathlib import Path

from orchestrator.cli.main import app

CALLBACKS_KEPT = 20


def watch() -> list[tuple[float, float, str]]:
    """Start timing all callbacks of all event loops.

    Returns:
        A heap of the longest callbacks, updated as they run: CPU-seconds, Unix time in seconds, and
        the name of the callback.
    """
    longest: list[tuple[float, float, str]] = []
    run = asyncio.Handle._run

    def timed(self: asyncio.Handle) -> None:
        began = time.thread_time()
        run(self)
        took = time.thread_time() - began
        if len(longest) < CALLBACKS_KEPT:
            heapq.heappush(longest, (took, time.time(), named(self)))
        elif took > longest[0][0]:
            heapq.heapreplace(longest, (took, time.time(), named(self)))

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    return longest


def named(handle: asyncio.Handle) -> str:
    """Describe a callback; for a task, by its coroutine, which the handle's repr omits."""
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return repr(task if isinstance(task, asyncio.Task) else handle)


if __name__ == "__main__":
    report = Path(sys.argv.pop(1))
    longest = watch()
    try:
        app()
    finally:
        report.write_text(json.dumps(sorted(longest, reverse=True)))
