"""The database: SQLite for one process, PostgreSQL for many.

Both run the same statements. `sqlite` and `postgresql` contain the differences. This module locks
the SQLite file and retries while the database is unreachable.
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

# Used where no client waits for the result; long enough to survive a restart of PostgreSQL.
RETRY_TIMEOUT_S = 60.0
# The first and the longest delay in seconds; each delay is twice the previous one.
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 2.0
# Connection, server and lock errors, which may be transient.
RETRIED = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


class Database:
    """A database whose reads and writes are retried while it is unreachable.

    Args:
        url: `postgresql://...`; empty to use SQLite.
        file: the SQLite file.

    Attributes:
        id: 32 hexadecimal digits, unique except among copies of the database; empty until opened.
        is_shared: whether several processes can use the database.
    """

    def __init__(self, url: str, file: Path) -> None:
        self.id = ""
        self.is_shared = bool(url)
        self._file = file
        self._lock_file: IO[str] | None = None
        self._engine: Engine = PostgreSQL(url) if url else SQLite(file)

    async def open(self) -> None:
        """Locks the SQLite file, and creates or upgrades the tables in one transaction.

        Raises:
            DatabaseInUseError: another process has locked the file.
            SettingsError: the database cannot be used, for a permanent reason.
        """
        if not self.is_shared:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._acquire_file_lock()
        try:
            self.id = await self.write(self._prepare)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._engine.close()
        if self._lock_file is not None:
            self._lock_file.close()

    async def read(self, work: Work[T], retry_timeout_s: float = RETRY_TIMEOUT_S) -> T:
        """Runs `work` on a connection and returns its result.

        Raises:
            DatabaseUnavailableError: the database was unreachable for `retry_timeout_s` seconds.
        """
        return await _with_retries(lambda: self._engine.read(work), retry_timeout_s)

    async def write(self, work: Work[T], retry_timeout_s: float = RETRY_TIMEOUT_S) -> T:
        """Runs `work` in a transaction and returns its result.

        A retry may repeat work that was already committed.

        Raises:
            DatabaseUnavailableError: the database was unreachable for `retry_timeout_s` seconds.
        """
        return await _with_retries(lambda: self._engine.write(work), retry_timeout_s)

    async def ping(self, retry_timeout_s: float) -> None:
        """Runs a query that needs no table.

        Raises:
            DatabaseUnavailableError: the database was unreachable for `retry_timeout_s` seconds.
        """
        await self.read(_select_one, retry_timeout_s)

    def serialize(self, connection: sa.Connection) -> None:
        """Waits until no other transaction that called this is open."""
        self._engine.serialize(connection)

    def _acquire_file_lock(self) -> None:
        self._lock_file = self._file.with_suffix(".lock").open("w")
        if not lock(self._lock_file):
            self._lock_file.close()
            raise DatabaseInUseError(
                f"another process uses {self._file}; stop it, or set MUSICLAB_RUN_DIR to another "
                "directory"
            )

    def _prepare(self, connection: sa.Connection) -> str:
        """Creates or upgrades the tables; returns the database ID."""
        self.serialize(connection)
        migrate(connection, self._engine.name)
        if connection.execute(sa.select(identity.c.id)).first() is None:
            connection.execute(sa.insert(identity).values(id=uuid.uuid4().hex))
        return str(connection.execute(sa.select(identity.c.id)).scalar_one())


async def _with_retries(once: Callable[[], Coroutine[Any, Any, T]], retry_timeout_s: float) -> T:
    async def attempt() -> T:
        # Not cancelled: an interrupted statement leaves the connection in an unknown state, which
        # drivers handle differently.
        return await shielded(once())

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(RETRIED),
        wait=wait_exponential(multiplier=FIRST_RETRY_S, max=LONGEST_RETRY_S),
        stop=stop_before_delay(retry_timeout_s),
        reraise=True,
    )
    try:
        result: T = await retrying(attempt)
    except RETRIED as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        raise DatabaseUnavailableError(f"the database is unreachable: {reason}") from error
    return result


def _select_one(connection: sa.Connection) -> None:
    connection.execute(sa.select(1))
