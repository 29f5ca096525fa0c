"""Calls of the database: repeated, given up, and cut off."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.errors import DatabaseUnavailableError
from tests.support.tables import Backend, Tables

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none"


async def test_a_database_answers_a_ping(tables: Tables) -> None:
    await tables.database.ping(1)


async def test_an_unreachable_database_does_not(tmp_path: Path) -> None:
    database = Database(UNREACHABLE, tmp_path / "unused")
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match="the database does not answer: "):
        await database.ping(0.5)
    assert time.monotonic() - began < 5  # a minute without that patience
    await database.close()


def refused() -> sa.exc.OperationalError:
    return sa.exc.OperationalError("SELECT 1", None, Exception("it is locked\nand more"))


async def test_work_is_repeated_with_growing_waits_until_the_next_would_be_too_long(
    tmp_path: Path,
) -> None:
    tries: list[float] = []

    def work(_connection: sa.Connection) -> None:
        tries.append(time.monotonic())
        raise refused()

    async with Backend("", tmp_path / "jobs.sqlite").opened() as tables:
        with pytest.raises(DatabaseUnavailableError) as gave_up:
            await tables.database.read(work, 1.4)
        assert str(gave_up.value) == "the database does not answer: it is locked"
        assert isinstance(gave_up.value.__cause__, sa.exc.OperationalError)
    waits = [after - before for before, after in pairwise(tries)]
    assert len(waits) == 3
    assert all(wait > least for wait, least in zip(waits, (0.095, 0.19, 0.38), strict=True))


async def test_work_that_succeeds_in_the_end_returns(tables: Tables) -> None:
    tries = 0

    def work(connection: sa.Connection) -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise refused()
        return int(connection.execute(sa.text("SELECT 42")).scalar_one())

    assert await tables.database.write(work, 5) == 42
    assert tries == 3


async def test_work_at_fault_is_not_repeated(tables: Tables) -> None:
    tries = 0

    def work(_connection: sa.Connection) -> None:
        nonlocal tries
        tries += 1
        raise ValueError("at fault")

    with pytest.raises(ValueError, match="at fault"):
        await tables.database.write(work)
    assert tries == 1


async def test_work_may_be_cancelled_between_two_tries(tmp_path: Path) -> None:
    def work(_connection: sa.Connection) -> None:
        raise refused()

    async with Backend("", tmp_path / "jobs.sqlite").opened() as tables:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tables.database.read(work), 0.5)
        await tables.database.ping(1)


async def test_a_write_that_fails_changes_no_tables(tables: Tables) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half_made (number integer)"))
        raise ValueError("at fault")

    with pytest.raises(ValueError, match="at fault"):
        await tables.database.write(work)
    names = await tables.database.read(lambda found: sa.inspect(found).get_table_names())
    assert "half_made" not in names
