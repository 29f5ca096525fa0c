"""The SQLite engine: a file used by one process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from orchestrator.database.base import T, Work


class SQLite:
    """An engine for an SQLite file.

    Writes run in a single thread, because they wait for the disk; there is one transaction at a
    time. Reads run on the event loop: a reader never waits for the writer, most reads take 0.5 ms,
    and switching to a thread and back took up to 25 ms on a machine with all cores busy.
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
                # Python's driver begins a transaction only at the first change of a row, and would
                # commit every schema change separately.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._writer, once)

    def serialize(self, connection: sa.Connection) -> None:
        """Does nothing: there is only one writer."""

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.shutdown)
        self._engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    """Allows reads during a write, and makes commits durable across power failures."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
