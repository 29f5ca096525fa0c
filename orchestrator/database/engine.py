"""The database behind the tables: SQLite for one process, PostgreSQL for many.

The same statements run on both. What differs is here: the lock on the file, who may write when, and
how long a database that is away is waited for.
"""

import asyncio
import fcntl
import time
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator.database.schema import LAYOUT, identity, layout, metadata
from orchestrator.errors import DatabaseInUseError, DatabaseUnavailableError, SettingsError

# Long enough to ride out a restart of PostgreSQL for those who have nobody waiting for them.
PATIENCE_S = 60.0
RETRY_S = (0.1, 2.0)  # the first wait and the longest; each is twice the one before

# A process that is frozen or cut off within a transaction must not hold a row for ever, nor may a
# connection to a host that is gone. Both are libpq's and PostgreSQL's own names.
POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "options": "-c idle_in_transaction_session_timeout=10s -c lock_timeout=10s",
}
# Any number that nobody else uses: serialises what has to be counted and written in one go.
ADVISORY_LOCK = 0x6D75736963

T = TypeVar("T")
# Work is done on a connection without awaiting anything. (Asynchronous drivers of SQLite go to a
# thread and back for every statement and every fetch, and made status three times as slow.)
Work = Callable[[sa.Connection], T]


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
        """Take the database, and create the tables where there are none.

        Raises:
            DatabaseInUseError: another process owns the file.
            SettingsError: the database cannot be used, for reasons that waiting does not end.
        """
        if not self.is_shared:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._take_file()
        try:
            self.id = await self.write(self._create)
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
        if self.is_shared:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))

    def _take_file(self) -> None:
        self._lock_file = self._file.with_suffix(".lock").open("w")
        try:
            # The kernel drops it with the process, however that ends.
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise DatabaseInUseError(
                f"another process uses {self._file}; stop it, or set MUSICLAB_RUN_DIR to another "
                "folder"
            ) from None

    def _create(self, connection: sa.Connection) -> str:
        self.serialise(connection)
        if "jobs" in sa.inspect(connection).get_table_names():
            self._check_layout(connection)
        else:
            metadata.create_all(connection)
            connection.execute(sa.insert(layout).values(number=LAYOUT))
        identity.create(connection, checkfirst=True)  # which came later than the layout's number
        if connection.execute(sa.select(identity.c.id)).first() is None:
            connection.execute(sa.insert(identity).values(id=uuid.uuid4().hex))
        return str(connection.execute(sa.select(identity.c.id)).scalar_one())

    def _check_layout(self, connection: sa.Connection) -> None:
        found = None
        if "layout" in sa.inspect(connection).get_table_names():
            found = connection.execute(sa.select(layout.c.number)).scalar()
        if found != LAYOUT:
            where = "the database of MUSICLAB_DATABASE_URL" if self.is_shared else self._file
            raise SettingsError(
                f"{where} was made by another version of MusicLab; let that version finish its "
                "jobs, then remove it"
            )


class Engine(Protocol):
    """Where work is done."""

    async def read(self, work: Work[T]) -> T: ...

    async def write(self, work: Work[T]) -> T: ...

    async def close(self) -> None: ...


class SQLite:
    """A file.

    It is written in one thread, which waits for the disk, and no writer for another. It is read in
    the event loop: a reader never waits for the writer, most reads take half a millisecond, and
    going to a thread and back took up to 25 ms on a machine whose cores are all at work.
    """

    def __init__(self, file: Path) -> None:
        self._engine = sa.create_engine(f"sqlite:///{file}")
        event.listen(self._engine, "connect", _configure)
        self._writer = ThreadPoolExecutor(1, "sqlite-writer")

    async def read(self, work: Work[T]) -> T:
        with self._engine.connect() as connection:
            return work(connection)

    async def write(self, work: Work[T]) -> T:
        def once() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._writer, once)

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.shutdown)
        self._engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    """Readers beside one writer, and a commit that outlasts a power failure."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class PostgreSQL:
    """A server.

    Raises:
        SettingsError: the URL is not one of PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            parsed = None
        if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
            raise SettingsError(
                "MUSICLAB_DATABASE_URL has to be postgresql://user:password@host:port/database"
            )
        self._engine = create_async_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args=POSTGRESQL_OPTIONS,
            pool_size=8,
            max_overflow=8,
            pool_pre_ping=True,
        )

    async def read(self, work: Work[T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Work[T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


async def _undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Let a transaction end even if whoever waits for it is cancelled.

    A statement that is cut off leaves a connection in an unknown state, and drivers differ in what
    they make of it.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _with_patience(once: Callable[[], Coroutine[Any, Any, T]], patience_s: float) -> T:
    deadline = time.monotonic() + patience_s
    wait, longest = RETRY_S
    while True:
        try:
            return await _undisturbed(once())
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            if time.monotonic() + wait > deadline:
                reason = str(getattr(error, "orig", error)).partition("\n")[0]
                raise DatabaseUnavailableError(f"the database does not answer: {reason}") from error
        await asyncio.sleep(wait)
        wait = min(longest, 2 * wait)


def _select_one(connection: sa.Connection) -> None:
    connection.execute(sa.select(1))
