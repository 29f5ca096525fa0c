"""SQLite: a file that belongs to one process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from orchestrator.database.base import T, Work


class SQLite:
    """A file.

    It is written in one thread, which waits for the disk, so that there is one transaction at a
    time. It is read in the event loop: a reader never waits for the writer, most reads take half a
    millisecond, and going to a thread and back took up to 25 ms on a machine whose cores are all
    busy.
    """

    def __init__(self, file: Path) -> None:
        self.name = str(file)
        self._engine = sa.create_engine(f"sqlite:///{file}")
        event.listen(self._engine, "connect", _configure)
        self._writer = ThreadPoolExecutor(1, "sqlite-writer")

    async def read(self, work: Work[T]) -> T:
        with self._engine.connect() as connection:
            return work(connection)

    async def write(self, work: Work[T]) -> T:
        def once() -> T:
            with self._engine.begin() as connection:
                # Python's driver begins a transaction at the first change of a row only, and would
                # commit every change of the schema on its own.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._writer, once)

    def serialise(self, connection: sa.Connection) -> None:
        """Nothing to wait for: there is one writer."""

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.shutdown)
        self._engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    """Allow reading during a write, and make a commit outlast a power failure."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
