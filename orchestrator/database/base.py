"""What SQLite and PostgreSQL have in common for those who use them."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import sqlalchemy as sa

T = TypeVar("T")
# Work is done on a connection without awaiting anything. (Asynchronous drivers of SQLite go to a
# thread and back for every statement and every fetch, and made status three times as slow.)
Work = Callable[[sa.Connection], T]


class Engine(Protocol):
    """Runs work on connections of one database.

    Attributes:
        name: of the database, for people; it holds no password.
    """

    name: str

    async def read(self, work: Work[T]) -> T:
        """What `work` returns."""

    async def write(self, work: Work[T]) -> T:
        """The same in one transaction, changes of the schema included."""

    def serialise(self, connection: sa.Connection) -> None:
        """Waits until no other transaction that called this is open."""

    async def close(self) -> None: ...
