"""The job table: leases, fencing, order, and what a restart finds."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator import jobs as table_module
from orchestrator.errors import DatabaseInUseError, LeaseLostError
from orchestrator.jobs import Job, JobTable
from orchestrator.windows import Window

EXTENSIONS = (".mp3", ".wav")
WINDOWS = (Window(0, 16), Window(2.5, 18.5))

Scenario = Callable[[JobTable], Coroutine[Any, Any, None]]


def run(folder: Path, *scenarios: Scenario) -> None:
    """Each scenario with a table opened anew on the same file, as after a restart."""

    async def all_of_them() -> None:
        for scenario in scenarios:
            table = JobTable(folder / "jobs.sqlite")
            await table.open()
            try:
                await scenario(table)
            finally:
                await table.close()

    asyncio.run(all_of_them())


async def submitted(table: JobTable, *ids: str) -> None:
    for job_id in ids:
        await table.submit(job_id, EXTENSIONS, WINDOWS)


async def claimed(table: JobTable) -> Job:
    job = await table.claim()
    assert job is not None
    return job


async def got(table: JobTable, job_id: str) -> Job:
    job = await table.get(job_id)
    assert job is not None
    return job


def test_a_job_comes_back_as_it_was_submitted(tmp_path: Path) -> None:
    async def scenario(table: JobTable) -> None:
        await submitted(table, "a")
        job = await got(table, "a")
        assert (job.state, job.progress, job.attempt) == ("queued", 0, 0)
        assert (job.extensions, job.windows) == (EXTENSIONS, WINDOWS)
        assert job.started_at is None
        assert await table.get("b") is None

    run(tmp_path, scenario)


def test_jobs_are_claimed_in_order_and_once(tmp_path: Path) -> None:
    async def scenario(table: JobTable) -> None:
        await submitted(table, "first", "second", "third")
        assert await table.queue_position(await got(table, "third")) == 3
        taken = await asyncio.gather(*(table.claim() for _ in range(5)))
        assert [job.id for job in taken if job] == ["first", "second", "third"]

    run(tmp_path, scenario)


def test_progress_never_goes_back(tmp_path: Path) -> None:
    async def scenario(table: JobTable) -> None:
        await submitted(table, "a")
        job = await claimed(table)
        for told, shown in ((10, 10), (50, 50), (30, 50), (95, 95)):
            await table.advance(job, told, "step")
            assert (await got(table, "a")).progress == shown
        await table.complete(job)
        done = await got(table, "a")
        assert (done.state, done.progress) == ("completed", 100)
        assert done.finished_at is not None
        assert done.started_at is not None
        assert done.created_at <= done.started_at <= done.finished_at

    run(tmp_path, scenario)


def test_a_lost_lease_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(table: JobTable) -> None:
        await submitted(table, "a")
        monkeypatch.setattr(table_module, "LEASE_S", -1.0)
        stale = await claimed(table)
        fresh = await claimed(table)
        assert (stale.attempt, fresh.attempt) == (1, 2)
        for write in (
            table.renew(stale),
            table.advance(stale, 95, "late"),
            table.mark_converted(stale),
            table.complete(stale),
            table.fail(stale, "late", "late"),
            table.retry(stale, 0),
            table.hand_back(stale),
        ):
            with pytest.raises(LeaseLostError):
                await write
        untouched = await got(table, "a")
        assert (untouched.state, untouched.attempt, untouched.converted) == ("running", 2, False)
        assert untouched.message == fresh.message
        await table.complete(fresh)

    run(tmp_path, scenario)


def test_a_deleted_job_cannot_be_written(tmp_path: Path) -> None:
    async def scenario(table: JobTable) -> None:
        await submitted(table, "a")
        job = await claimed(table)
        assert await table.delete("a")
        assert not await table.delete("a")
        with pytest.raises(LeaseLostError):
            await table.complete(job)
        assert await table.get("a") is None

    run(tmp_path, scenario)


def test_a_retry_waits_and_counts_and_handing_back_does_not(tmp_path: Path) -> None:
    async def scenario(table: JobTable) -> None:
        await submitted(table, "a")
        await table.retry(await claimed(table), after_s=60)
        assert await table.claim() is None
        assert (await got(table, "a")).attempt == 1

        await submitted(table, "b")
        await table.hand_back(await claimed(table))
        again = await claimed(table)
        assert (again.id, again.attempt) == ("b", 1)

    run(tmp_path, scenario)


def test_after_a_restart_what_ran_is_taken_at_once(tmp_path: Path) -> None:
    async def before(table: JobTable) -> None:
        await submitted(table, "a", "b", "c")
        await table.complete(await claimed(table))
        job = await claimed(table)
        await table.mark_converted(job)

    async def after(table: JobTable) -> None:
        assert (await got(table, "a")).state == "completed"
        orphan = await claimed(table)
        assert (orphan.id, orphan.attempt, orphan.converted) == ("b", 2, True)
        assert (await claimed(table)).id == "c"
        assert await table.claim() is None

    run(tmp_path, before, after)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    async def scenario(table: JobTable) -> None:
        with pytest.raises(DatabaseInUseError, match="MUSICLAB_RUN_DIR"):
            await JobTable(tmp_path / "jobs.sqlite").open()

    run(tmp_path, scenario)


def test_a_commit_outlasts_a_power_failure(tmp_path: Path) -> None:
    async def scenario(table: JobTable) -> None:
        async with table._engine.connect() as connection:
            journal = (await connection.execute(sa.text("PRAGMA journal_mode"))).scalar()
            synchronous = (await connection.execute(sa.text("PRAGMA synchronous"))).scalar()
        assert (journal, synchronous) == ("wal", 2)

    run(tmp_path, scenario)
