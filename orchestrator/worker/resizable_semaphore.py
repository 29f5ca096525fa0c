"""A fair semaphore whose number of slots can change at any time.

Unlike `asyncio.Semaphore`, it can be resized while slots are held and awaited.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ResizableSemaphore:
    """A limited number of slots, granted in the order of the requests."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._held = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> bool:
        """Whether a slot is free."""
        return self._held < self._number

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Waits for a slot and holds it during the block."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    def resize(self, number: int) -> None:
        """Changes the number of slots.

        If more are held already, none is granted until enough are released.
        """
        self._number = number
        self._grant_slots()

    async def _acquire(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._grant_slots()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # the slot was granted at the same moment
                self._release()
            raise

    def _release(self) -> None:
        self._held -= 1
        self._grant_slots()

    def _grant_slots(self) -> None:
        while self._waiters and self.free:
            waiter = self._waiters.popleft()
            if not waiter.done():  # the caller may have been cancelled
                waiter.set_result(None)
                self._held += 1
