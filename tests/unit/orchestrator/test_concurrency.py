"""Periodic work, background tasks, and work that cancellation must not interrupt."""

import asyncio

import pytest
import structlog

from orchestrator.concurrency import background_tasks, run_in_thread, run_periodically, shielded
from orchestrator.errors import MusicLabError


async def test_periodic_work_survives_failures_and_logs_repeated_ones_once() -> None:
    outcomes: list[Exception | None] = [
        MusicLabError("unreachable"),
        MusicLabError("unreachable"),
        MusicLabError("full"),
        None,
        MusicLabError("full"),
        ValueError("a bug"),
        ValueError("a bug"),
    ]
    done = asyncio.Event()

    async def work() -> None:
        if not outcomes:
            done.set()
            return
        if outcome := outcomes.pop(0):
            raise outcome

    with structlog.testing.capture_logs() as lines:
        async with background_tasks(run_periodically(work, 0, "it failed")):
            await asyncio.wait_for(done.wait(), 10)
    logged = [(line["event"], line["log_level"], line.get("reason")) for line in lines]
    assert logged == [
        ("it failed", "warning", "unreachable"),
        ("it failed", "warning", "full"),
        ("it failed", "warning", "full"),
        ("it failed", "error", None),
        ("it failed", "error", None),
    ]


async def test_background_tasks_end_with_the_block() -> None:
    ended = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    with pytest.raises(ValueError, match="in the block"):
        async with background_tasks(forever("one"), forever("two")):
            await asyncio.sleep(0)
            raise ValueError("in the block")
    assert sorted(ended) == ["one", "two"]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_shielded_work_continues_after_repeated_cancellation_of_its_caller(
    times: int,
) -> None:
    begun, may_end, steps = asyncio.Event(), asyncio.Event(), []

    async def work() -> None:
        begun.set()
        await may_end.wait()
        steps.append("work")

    async def caller() -> None:
        try:
            await shielded(work())
        finally:
            steps.append("caller")

    task = asyncio.create_task(caller())
    await begun.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while "work" not in steps:
            await asyncio.sleep(0)
    # After a single cancellation, the caller waits for the work.
    assert steps == (["work", "caller"] if times == 1 else ["caller", "work"])


async def test_the_result_or_error_of_a_thread_is_passed_on() -> None:
    assert await run_in_thread(sum, [1, 2]) == 3
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(divmod, 1, 0)
