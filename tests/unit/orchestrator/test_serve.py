"""Blocking work in a separate thread, in which `musiclab up` supervises TorchServe."""

import asyncio
from threading import Event, current_thread

import pytest

from orchestrator.errors import ModelServerError
from orchestrator.serve import _in_daemon_thread


async def test_an_error_in_the_thread_is_raised() -> None:
    def work() -> None:
        raise ModelServerError("port 8080 is taken")

    with pytest.raises(ModelServerError, match="port 8080 is taken"):
        await asyncio.wait_for(_in_daemon_thread(work), 10)


async def test_cancelling_stops_the_wait_but_not_the_work() -> None:
    may_end, threads = Event(), []

    def work() -> None:
        may_end.wait(10)
        threads.append(current_thread())

    waiting = _in_daemon_thread(work)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    async with asyncio.timeout(10):
        while not threads:
            await asyncio.sleep(0.01)
    assert threads[0].daemon
