"""Database calls: retries, timeouts and cancellation."""

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


async def test_a_ping_succeeds(tables: Tables) -> None:
    await tables.database.ping(1)


async def test_a_ping_of_an_unreachable_database_fails(tmp_path: Path) -> None:
    database = Database(UNREACHABLE, tmp_path / "unused")
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match="the database is unreachable: "):
        await database.ping(0.5)
    assert time.monotonic() - began < 5  # the default timeout is a minute
    await database.close()


def locked_error() -> sa.exc.OperationalError:
    return sa.exc.OperationalError("SELECT 1", None, Exception("it is locked\nand more"))


async def test_failing_work_is_retried_with_growing_waits_until_the_timeout(
    tmp_path: Path,
) -> None:
    attempts: list[float] = []

    def work(_connection: sa.Connection) -> None:
        attempts.append(time.monotonic())
        raise locked_error()

    async with Backend("", tmp_path / "jobs.sqlite").opened() as tables:
        with pytest.raises(DatabaseUnavailableError) as raised:
            await tables.database.read(work, 1.4)
        assert str(raised.value) == "the database is unreachable: it is locked"
        assert isinstance(raised.value.__cause__, sa.exc.OperationalError)
    waits = [after - before for before, after in pairwise(attempts)]
    assert len(waits) == 3
    assert all(wait > least for wait, least in zip(waits, (0.095, 0.19, 0.38), strict=True))


async def test_a_successful_retry_returns_its_result(tables: Tables) -> None:
    attempts = 0

    def work(connection: sa.Connection) -> int:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise locked_error()
        return int(connection.execute(sa.text("SELECT 42")).scalar_one())

    assert await tables.database.write(work, 5) == 42
    assert attempts == 3


async def test_work_that_raises_other_errors_is_not_retried(tables: Tables) -> None:
    attempts = 0

    def work(_connection: sa.Connection) -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await tables.database.write(work)
    assert attempts == 1


async def test_work_can_be_cancelled_between_two_attempts(tmp_path: Path) -> None:
    def work(_connection: sa.Connection) -> None:
        raise locked_error()

    async with Backend("", tmp_path / "jobs.sqlite").opened() as tables:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tables.database.read(work), 0.5)
        await tables.database.ping(1)


async def test_a_failed_write_is_rolled_back(tables: Tables) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half_made (number integer)"))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await tables.database.write(work)
    names = await tables.database.read(lambda found: sa.inspect(found).get_table_names())
    assert "half_made" not in names
