"""Slots: never more than the number, first come first served, none lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.worker.resizable_semaphore import ResizableSemaphore

WAIT_S = 5.0


class Queue:
    """Who holds slots, in the order in which they came to have them.

    Attributes:
        slots: that are asked for.
        holders: names of those who have one now.
    """

    def __init__(self, number: int) -> None:
        self.slots = ResizableSemaphore(number)
        self.holders: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """Each asks for a slot and keeps it until it is to end."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._hold(name))
        await settled()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await settled()

    def cancel(self, name: str) -> asyncio.Task[None]:
        self._tasks[name].cancel()
        return self._tasks[name]

    async def _hold(self, name: str) -> None:
        async with self.slots.hold():
            self.holders.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.holders.remove(name)


async def settled() -> None:
    """Let everybody who can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def slots(number: int) -> AsyncIterator[Queue]:
    """A queue for that many slots, whose use has to end in time."""
    async with asyncio.timeout(WAIT_S):
        yield Queue(number)


async def test_no_more_than_the_number_are_held_and_the_first_come_is_served_first() -> None:
    async with slots(2) as queue:
        await queue.ask("a", "b")
        assert not queue.slots.free
        await queue.ask("c", "d")
        assert queue.holders == ["a", "b"]
        await queue.end("b")
        assert queue.holders == ["a", "c"]
        await queue.end("a")
        assert queue.holders == ["c", "d"]
        await queue.end("c")
        assert queue.slots.free


async def test_nobody_overtakes_those_who_wait() -> None:
    async with slots(1) as queue:
        await queue.ask("a", "b")
        ending = asyncio.create_task(queue.end("a"))
        await asyncio.sleep(0)  # it is about to give its slot back
        await queue.ask("c")
        await ending
        assert queue.holders == ["b"]


async def test_who_is_cancelled_gives_up_its_place() -> None:
    async with slots(1) as queue:
        await queue.ask("a", "b", "c")
        await asyncio.wait({queue.cancel("b")})
        await queue.end("a")
        assert queue.holders == ["c"]
        await asyncio.wait({queue.cancel("c")})
        assert queue.slots.free


async def test_a_slot_given_to_one_who_is_cancelled_at_that_moment_is_not_lost() -> None:
    async with slots(1) as queue:
        await queue.ask("a", "b", "c")
        queue.slots.resize(2)  # gives b its slot, which b has not noticed
        await asyncio.wait({queue.cancel("b")})
        await settled()
        assert queue.holders == ["a", "c"]


async def test_more_slots_are_given_at_once() -> None:
    async with slots(1) as queue:
        await queue.ask("a", "b", "c", "d")
        queue.slots.resize(3)
        await settled()
        assert queue.holders == ["a", "b", "c"]


async def test_fewer_slots_take_effect_as_they_are_given_back() -> None:
    async with slots(3) as queue:
        await queue.ask("a", "b", "c", "d", "e")
        queue.slots.resize(1)
        for name in ("a", "b"):
            await queue.end(name)
            assert not queue.slots.free
        assert queue.holders == ["c"]
        await queue.end("c")
        assert queue.holders == ["d"]
