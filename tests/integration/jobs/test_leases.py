"""Claims and leases on both databases: order, fencing, and jobs whose process died."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.database.schema import jobs
from orchestrator.errors import LeaseLostError
from orchestrator.jobs import leases as leases_module
from orchestrator.jobs.leases import PINNED_WAIT_S
from orchestrator.jobs.table import LEASE_S
from tests.support.postgres import PostgresServer
from tests.support.tables import UPLOAD, Backend, Tables, new_id


async def test_jobs_are_claimed_in_order_and_once(tables: Tables) -> None:
    for job_id in ("first", "second", "third"):
        await tables.submit(job_id)
    seen = await asyncio.gather(*(tables.feed.get(name) for name in ("third", "first", "none")))
    assert [snapshot and snapshot.position for snapshot in seen] == [3, 1, None]
    taken = await asyncio.gather(*(tables.leases.claim() for _ in range(5)))
    assert sorted(job.id for job in taken if job) == ["first", "second", "third"]
    assert {job.lease for job in taken if job} == {1}


NAMED = replace(UPLOAD, wanted_version="named")


async def let_time_pass(tables: Tables, seconds: float) -> None:
    """Changes the times of all jobs as if they had waited `seconds` longer."""

    def work(connection: sa.Connection) -> None:
        earlier = {
            column.name: column - seconds
            for column in (jobs.c.created_at, jobs.c.run_at, jobs.c.lease_until)
        }
        connection.execute(sa.update(jobs).values(earlier))

    await tables.database.write(work)


async def claim_all(tables: Tables, *loaded: str) -> list[str]:
    """Claims jobs as a process that has these versions loaded; returns the ids of the jobs."""
    taken = []
    while job := await tables.leases.claim(loaded):
        taken.append(job.id)
    return taken


async def test_a_job_that_names_a_loaded_version_is_claimed_in_order(tables: Tables) -> None:
    for job_id, upload in (("a", UPLOAD), ("b", NAMED), ("c", UPLOAD)):
        await tables.submit(job_id, upload)
    assert await claim_all(tables, "other", "named") == ["a", "b", "c"]


async def test_a_job_that_names_another_version_is_first_left_to_other_processes(
    tables: Tables,
) -> None:
    await tables.submit("a", NAMED)
    await tables.submit("b")
    assert await claim_all(tables, "other") == ["b"]
    await let_time_pass(tables, PINNED_WAIT_S - 5)
    assert await claim_all(tables, "other") == []
    assert await claim_all(tables) == []
    await let_time_pass(tables, 5)
    assert await claim_all(tables, "other") == ["a"]


async def test_a_job_that_names_another_version_is_also_left_to_others_after_its_lease_expires(
    tables: Tables,
) -> None:
    await tables.submit("a", NAMED)
    assert await claim_all(tables, "named") == ["a"]
    tables.leases.release("a")
    await let_time_pass(tables, LEASE_S)
    assert await claim_all(tables, "other") == []
    assert await claim_all(tables, "named") == ["a"]
    tables.leases.release("a")
    await let_time_pass(tables, LEASE_S + PINNED_WAIT_S)
    assert await claim_all(tables, "other") == ["a"]


async def test_nothing_can_be_written_under_a_lost_lease(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.submit("a")
    monkeypatch.setattr(leases_module, "LEASE_S", -1.0)
    stale = await tables.claim()
    assert await tables.leases.claim() is None, "a process does not claim its own job again"
    tables.leases.release("a")
    fresh = await tables.claim()
    assert (stale.lease, fresh.lease) == (1, 2)
    leases = tables.leases
    for write in (
        leases.advance(stale, 95, "late"),
        leases.mark_converted(stale, 1, {}),
        leases.begin_generation(stale, "late", None, "late"),
        leases.complete(stale, 1, {}, 1.0),
        leases.fail(stale, "late", "late", 1),
        leases.retry(stale, 0, "late", 0),
    ):
        with pytest.raises(LeaseLostError):
            await write
    untouched = await tables.get("a")
    assert (untouched.state, untouched.lease, untouched.converted) == ("running", 2, False)
    assert (untouched.revision, untouched.attempts) == (fresh.revision, 0)
    await tables.complete(fresh)


async def test_a_commit_can_be_repeated_when_its_response_was_lost(tables: Tables) -> None:
    await tables.submit("a")
    job = await tables.claim()
    for _ in range(2):
        await tables.leases.complete(job, 1, {}, 1.0)
    assert len(await tables.feed.events_after("a", after=2)) == 1


async def test_only_held_leases_are_renewed(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.submit("a")
    with monkeypatch.context() as short:
        short.setattr(leases_module, "LEASE_S", -1.0)
        await tables.claim()
    tables.leases.release("a")
    await tables.leases.renew()
    again = await tables.claim()
    assert again.lease == 2
    await tables.leases.renew()
    assert await tables.leases.claim() is None
    assert await tables.leases.still_held(["a", "b"]) == {"a"}


async def test_a_deleted_job_cannot_be_changed(tables: Tables) -> None:
    await tables.submit("a")
    job = await tables.claim()
    assert await tables.table.delete("a")
    assert not await tables.table.delete("a")
    with pytest.raises(LeaseLostError):
        await tables.leases.complete(job, 1, {}, 1.0)
    assert await tables.table.get("a") is None
    assert await tables.feed.events_after("a", after=0) == []


async def test_running_jobs_are_claimed_at_once_after_a_restart(tmp_path: Path) -> None:
    backend = Backend("", tmp_path / "jobs.sqlite")
    async with backend.opened() as tables:
        for job_id in ("a", "b", "c"):
            await tables.submit(job_id)
        await tables.complete(await tables.claim())
        await tables.leases.mark_converted(await tables.claim(), 1, {})
    async with backend.opened() as tables:
        assert (await tables.get("a")).state == "completed"
        orphan = await tables.claim()
        assert (orphan.id, orphan.lease, orphan.converted) == ("b", 2, True)
        assert (orphan.deaths, orphan.attempts) == (1, 0), "its process died; no attempt failed"
        assert (await tables.claim()).id == "c"
        assert await tables.leases.claim() is None


async def test_two_processes_never_claim_the_same_job(postgres: PostgresServer) -> None:
    backend = Backend(postgres.create_database(new_id()), Path())
    async with backend.opened() as ours, backend.opened() as theirs:
        names = [f"job{number}" for number in range(20)]
        for name in names:
            await ours.submit(name)
        claims = (tables.leases.claim() for tables in (ours, theirs) for _ in range(20))
        taken = [job.id for job in await asyncio.gather(*claims) if job]
        assert sorted(taken) == sorted(names)
