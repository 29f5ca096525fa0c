"""The database: rejected configurations, durable commits and outages."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import layout
from orchestrator.errors import DatabaseInUseError, DatabaseUnavailableError, SettingsError
from tests.support.postgres import PostgresServer
from tests.support.tables import Backend, new_id


async def test_sqlite_rejects_a_second_process(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    async with Backend("", file).opened():
        with pytest.raises(DatabaseInUseError, match="MUSICLAB_RUN_DIR"):
            await Database("", file).open()


async def test_a_database_with_another_layout_is_rejected(backend: Backend) -> None:
    def change(connection: sa.Connection) -> None:
        connection.execute(sa.update(layout).values(number=0))

    async with backend.opened() as tables:
        await tables.database.write(change)
    with pytest.raises(SettingsError, match="another version of MusicLab"):
        async with backend.opened():
            pass


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense"])
def test_an_invalid_database_url_is_rejected(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="MUSICLAB_DATABASE_URL"):
        Database(url, tmp_path / "jobs.sqlite")


async def test_commits_survive_a_power_failure(tmp_path: Path) -> None:
    def pragmas(connection: sa.Connection) -> tuple[str, int]:
        journal = connection.execute(sa.text("PRAGMA journal_mode")).scalar_one()
        synchronous = connection.execute(sa.text("PRAGMA synchronous")).scalar_one()
        return journal, synchronous

    async with Backend("", tmp_path / "jobs.sqlite").opened() as tables:
        assert await tables.database.read(pragmas) == ("wal", 2)


async def test_calls_wait_for_a_restart_of_postgresql(postgres: PostgresServer) -> None:
    async with Backend(postgres.create_database(new_id()), Path()).opened() as tables:
        await tables.submit("a")
        job = await tables.claim()
        restarting = asyncio.create_task(asyncio.to_thread(postgres.restart))
        for progress in range(10, 90):
            await tables.leases.advance(job, progress, "step")
            await asyncio.sleep(0.02)
        await restarting
        await tables.complete(job)
        assert (await tables.get("a")).state == "completed"


async def test_a_database_that_stays_unreachable_is_reported(tmp_path: Path) -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none", tmp_path / "unused")
    with pytest.raises(DatabaseUnavailableError, match="the database is unreachable: "):
        await database.read(_nothing, retry_timeout_s=0.5)
    await database.close()


def _nothing(connection: sa.Connection) -> None:
    pass
