"""`musiclab` with a look at its event loop: how long did any callback keep it from the others?

    python -m benchmarks.watched_service REPORT up

Writes into the file REPORT, when the process ends, the callbacks that took the most CPU time of the
loop's thread. CPU time, because on a busy machine the clock on the wall tells of other processes.
"""

import asyncio
import heapq
import json
import sys
import time
from pathlib import Path

from orchestrator.cli.main import app

CACHE_ENABLED = 20


def watch() -> list[tuple[float, float, str]]:
    """Time every callback of every event loop from now on.

    The list holds the longest: seconds of CPU time, when that was (seconds since 1970), and which.
    """
    longest: list[tuple[float, float, str]] = []
    run = asyncio.Handle._run

    def timed(self: asyncio.Handle) -> None:
        began = time.thread_time()
        run(self)
        took = time.thread_time() - began
        if len(longest) < CACHE_ENABLED:
            heapq.heappush(longest, (took, time.time(), named(self)))
        elif took > longest[0][0]:
            heapq.heapreplace(longest, (took, time.time(), named(self)))

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    return longest


def named(handle: asyncio.Handle) -> str:
    """What ran: of a task its coroutine, which the handle's own name hides."""
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return repr(task if isinstance(task, asyncio.Task) else handle)


if __name__ == "__main__":
    report = Path(sys.argv.pop(1))
    longest = watch()
    try:
        app()
    finally:
        report.write_text(json.dumps(sorted(longest, reverse=True)))
