"""The common interface of the SQLite and PostgreSQL engines."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import sqlalchemy as sa

T = TypeVar("T")
# Work is synchronous. (Asynchronous SQLite drivers switch threads for every statement and every
# fetch, which made status requests three times as slow.)
Work = Callable[[sa.Connection], T]


class Engine(Protocol):
    """Runs work on connections of one database.

    Attributes:
        name: display name of the database, without a password.
    """

    name: str

    async def read(self, work: Work[T]) -> T:
        """Runs `work` and returns its result."""

    async def write(self, work: Work[T]) -> T:
        """Runs `work` in one transaction, including schema changes, and returns its result."""

    def serialize(self, connection: sa.Connection) -> None:
        """Waits until no other transaction that called this is open."""

    async def close(self) -> None: ...
