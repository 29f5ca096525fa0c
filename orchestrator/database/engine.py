"""The database: SQLite for one process, PostgreSQL for many.

The same statements run on both. `sqlite` and `postgresql` hold what differs; here is the lock on
SQLite's file, and for how long an unreachable database is tried again.
"""

import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_exponential,
)

from orchestrator.concurrency import shielded
from orchestrator.database.base import Engine, T, Work
from orchestrator.database.migrate import migrate
from orchestrator.database.postgresql import PostgreSQL
from orchestrator.database.schema import identity
from orchestrator.database.sqlite import SQLite
from orchestrator.errors import DatabaseInUseError, DatabaseUnavailableError
from orchestrator.filesystem import lock

# Long enough to ride out a restart of PostgreSQL where no client waits for an answer.
PATIENCE_S = 60.0
# The first wait and the longest, in seconds; each is twice the one before.
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 2.0
# Errors of the connection, of the server or of a lock, which another try may not meet.
RETRIED = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


class Database:
    """One database.

    Args:
        url: `postgresql://...`; empty for the file.
        file: SQLite's.

    Attributes:
        id: 32 hexadecimal digits that only copies of it share; empty until it is opened.
    """

    def __init__(self, url: str, file: Path) -> None:
        self.id = ""
        self.is_shared = bool(url)
        self._file = file
        self._lock_file: IO[str] | None = None
        self._engine: Engine = PostgreSQL(url) if url else SQLite(file)

    async def open(self) -> None:
        """Take the database, and create its tables or upgrade them in one transaction.

        Raises:
            DatabaseInUseError: another process owns the file.
            SettingsError: the database cannot be used, for reasons that waiting does not end.
        """
        if not self.is_shared:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._take_file()
        try:
            self.id = await self.write(self._prepare)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._engine.close()
        if self._lock_file is not None:
            self._lock_file.close()

    async def read(self, work: Work[T], patience_s: float = PATIENCE_S) -> T:
        """What `work` returns, given a connection.

        Raises:
            DatabaseUnavailableError: it did not answer within `patience_s` seconds.
        """
        return await _with_patience(lambda: self._engine.read(work), patience_s)

    async def write(self, work: Work[T], patience_s: float = PATIENCE_S) -> T:
        """The same in a transaction. Work that is repeated may have been committed before."""
        return await _with_patience(lambda: self._engine.write(work), patience_s)

    async def ping(self, patience_s: float) -> None:
        """Run a query that needs no table.

        Raises:
            DatabaseUnavailableError: it was not answered within `patience_s` seconds.
        """
        await self.read(_select_one, patience_s)

    def serialise(self, connection: sa.Connection) -> None:
        """Let no other writer that asks for this in until the transaction ends."""
        self._engine.serialise(connection)

    def _take_file(self) -> None:
        self._lock_file = self._file.with_suffix(".lock").open("w")
        if not lock(self._lock_file):
            self._lock_file.close()
            raise DatabaseInUseError(
                f"another process uses {self._file}; stop it, or set MUSICLAB_RUN_DIR to another "
                "folder"
            )

    def _prepare(self, connection: sa.Connection) -> str:
        """Create or upgrade the tables; returns the database's id."""
        self.serialise(connection)
        migrate(connection, self._engine.name)
        if connection.execute(sa.select(identity.c.id)).first() is None:
            connection.execute(sa.insert(identity).values(id=uuid.uuid4().hex))
        return str(connection.execute(sa.select(identity.c.id)).scalar_one())


async def _with_patience(once: Callable[[], Coroutine[Any, Any, T]], patience_s: float) -> T:
    async def attempt() -> T:
        # A statement that is cut off leaves a connection in an unknown state, and drivers differ in
        # what they make of it.
        return await shielded(once())

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(RETRIED),
        wait=wait_exponential(multiplier=FIRST_RETRY_S, max=LONGEST_RETRY_S),
        stop=stop_before_delay(patience_s),
        reraise=True,
    )
    try:
        result: T = await retrying(attempt)
    except RETRIED as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        raise DatabaseUnavailableError(f"the database does not answer: {reason}") from error
    return result


def _select_one(connection: sa.Connection) -> None:
    connection.execute(sa.select(1))
