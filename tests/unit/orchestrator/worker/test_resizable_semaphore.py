"""A resizable semaphore: limited slots, first come first served, none lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.worker.resizable_semaphore import ResizableSemaphore

WAIT_S = 5.0


class Queue:
    """Tasks that hold a slot or wait for one.

    Attributes:
        slots: the semaphore under test.
        holders: names of the tasks that hold a slot, in the order in which they acquired it.
    """

    def __init__(self, number: int) -> None:
        self.slots = ResizableSemaphore(number)
        self.holders: list[str] = []
        self._releases: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def acquire(self, *names: str) -> None:
        """For each name, start a task that acquires a slot and holds it until `release`."""
        for name in names:
            self._releases[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._hold(name))
        await settled()

    async def release(self, name: str) -> None:
        self._releases[name].set()
        await self._tasks[name]
        await settled()

    def cancel(self, name: str) -> asyncio.Task[None]:
        self._tasks[name].cancel()
        return self._tasks[name]

    async def _hold(self, name: str) -> None:
        async with self.slots.hold():
            self.holders.append(name)
            try:
                await self._releases[name].wait()
            finally:
                self.holders.remove(name)


async def settled() -> None:
    """Let all runnable tasks proceed."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def slots(number: int) -> AsyncIterator[Queue]:
    """A queue with this many slots, which must be used within WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        yield Queue(number)


async def test_slots_are_limited_and_assigned_in_order() -> None:
    async with slots(2) as queue:
        await queue.acquire("a", "b")
        assert not queue.slots.free
        await queue.acquire("c", "d")
        assert queue.holders == ["a", "b"]
        await queue.release("b")
        assert queue.holders == ["a", "c"]
        await queue.release("a")
        assert queue.holders == ["c", "d"]
        await queue.release("c")
        assert queue.slots.free


async def test_waiting_tasks_are_not_overtaken() -> None:
    async with slots(1) as queue:
        await queue.acquire("a", "b")
        releasing = asyncio.create_task(queue.release("a"))
        await asyncio.sleep(0)  # it is about to release its slot
        await queue.acquire("c")
        await releasing
        assert queue.holders == ["b"]


async def test_a_cancelled_task_leaves_the_queue() -> None:
    async with slots(1) as queue:
        await queue.acquire("a", "b", "c")
        await asyncio.wait({queue.cancel("b")})
        await queue.release("a")
        assert queue.holders == ["c"]
        await asyncio.wait({queue.cancel("c")})
        assert queue.slots.free


async def test_a_slot_assigned_to_a_task_being_cancelled_is_not_lost() -> None:
    async with slots(1) as queue:
        await queue.acquire("a", "b", "c")
        queue.slots.resize(2)  # assigns a slot to b, which has not resumed yet
        await asyncio.wait({queue.cancel("b")})
        await settled()
        assert queue.holders == ["a", "c"]


async def test_added_slots_are_assigned_immediately() -> None:
    async with slots(1) as queue:
        await queue.acquire("a", "b", "c", "d")
        queue.slots.resize(3)
        await settled()
        assert queue.holders == ["a", "b", "c"]


async def test_removed_slots_take_effect_as_slots_are_released() -> None:
    async with slots(3) as queue:
        await queue.acquire("a", "b", "c", "d", "e")
        queue.slots.resize(1)
        for name in ("a", "b"):
            await queue.release(name)
            assert not queue.slots.free
        assert queue.holders == ["c"]
        await queue.release("c")
        assert queue.holders == ["d"]
