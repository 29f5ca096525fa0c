"""Turns at something that only so many may use at once, in the order in which they were asked for.

As `asyncio.Semaphore`, but the number may change while slots are held and waited for.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ResizableSemaphore:
    """So many may be held at once; who waits longest gets the next one."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> bool:
        """Whether who asks now need not wait."""
        return self._held < self._number

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Wait for a slot and have it within the block."""
        await self._take()
        try:
            yield
        finally:
            self._give_back()

    def resize(self, number: int) -> None:
        """From now on so many; where more are held already, none is given until enough are back."""
        self._number = number
        self._hand_out()

    async def _take(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given at the same moment
                self._give_back()
            raise

    def _give_back(self) -> None:
        self._held -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self.free:
            turn = self._waiting.popleft()
            if not turn.done():  # as it is when the one who waited was cancelled
                turn.set_result(None)
                self._held += 1
