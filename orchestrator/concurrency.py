"""Background tasks, periodic work, and work that must not be interrupted by cancellation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import structlog

from orchestrator.errors import MusicLabError

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


async def run_periodically(
    work: Callable[[], Awaitable[object]], interval_s: float, failure: str
) -> None:
    """Calls `work` until cancelled, with a pause of `interval_s` seconds after each call.

    A failed call does not stop it. Consecutive failures with the same reason are logged once, as
    `failure`; unexpected exceptions are logged each time, with their traceback.
    """
    logged = None
    while True:
        try:
            await work()
            logged = None
        except MusicLabError as error:
            if str(error) != logged:
                logged = str(error)
                log.warning(failure, reason=logged)
        except Exception:
            log.exception(failure)
        await asyncio.sleep(interval_s)


@asynccontextmanager
async def background_tasks(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs the coroutines during the block, and cancels them at its end."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def shielded(work: Awaitable[T]) -> T:
    """Awaits work that is never cancelled; a cancelled caller waits until it ends.

    A caller that is cancelled again stops waiting, but the work continues.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # marks it as retrieved
        raise


async def run_in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs blocking work in a thread. A cancelled caller waits for its end, as for `shielded`."""
    return await shielded(asyncio.to_thread(function, *args, **kwargs))
