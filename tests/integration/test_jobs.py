"""The job table on both databases: leases, fencing, order, events, and what a restart finds."""

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.database.engine import Database
from orchestrator.database.schema import jobs, layout
from orchestrator.errors import (
    DatabaseInUseError,
    DatabaseUnavailableError,
    LeaseLostError,
    SettingsError,
    UploadExpiredError,
)
from orchestrator.jobs import leases as leases_module
from orchestrator.jobs.eta import EtaEstimator
from orchestrator.jobs.event_feed import EventFeed
from orchestrator.jobs.leases import STRANDED_S
from orchestrator.jobs.model import status_document
from orchestrator.jobs.table import LEASE_S
from tests.support.postgres import PostgresServer
from tests.support.tables import KEPT_S, UPLOAD, WORK_S, Backend, Tables, new_id, opened


def test_a_job_comes_back_as_it_was_submitted(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        job = await tables.get("a")
        assert (job.state, job.progress, job.attempts, job.lease) == ("queued", 0, 0, 0)
        assert (job.extensions, job.windows) == (UPLOAD.extensions, UPLOAD.windows)
        assert job.started_at is None
        assert await tables.table.get("b") is None

    backend.run(scenario)


def test_an_upload_that_is_not_complete_is_no_job(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.admission().admit("a", "192.0.2.1", 10, repeated=False)
        assert await tables.table.get("a") is None
        assert await tables.leases.claim() is None
        await tables.admission().withdraw("a")
        with pytest.raises(UploadExpiredError, match="too long"):

            def work(connection: sa.Connection) -> None:
                tables.table.submit("a", UPLOAD, connection)

            await tables.database.write(work)

    backend.run(scenario)


def test_jobs_are_claimed_in_order_and_once(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        for job_id in ("first", "second", "third"):
            await tables.submit(job_id)
        seen = await asyncio.gather(*(tables.feed.get(name) for name in ("third", "first", "none")))
        assert [snapshot and snapshot.position for snapshot in seen] == [3, 1, None]
        taken = await asyncio.gather(*(tables.leases.claim() for _ in range(5)))
        assert sorted(job.id for job in taken if job) == ["first", "second", "third"]
        assert {job.lease for job in taken if job} == {1}

    backend.run(scenario)


NAMED = replace(UPLOAD, wanted_version="named")


async def waited(tables: Tables, seconds: float) -> None:
    """As if all jobs had waited so much longer."""

    def work(connection: sa.Connection) -> None:
        earlier = {
            column.name: column - seconds
            for column in (jobs.c.created_at, jobs.c.run_at, jobs.c.lease_until)
        }
        connection.execute(sa.update(jobs).values(earlier))

    await tables.database.write(work)


async def claimed(tables: Tables, *loaded: str) -> list[str]:
    """The jobs that a process takes that has these versions."""
    taken = []
    while job := await tables.leases.claim(loaded):
        taken.append(job.id)
    return taken


def test_a_job_that_names_a_loaded_version_is_claimed_in_its_turn(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        for job_id, upload in (("a", UPLOAD), ("b", NAMED), ("c", UPLOAD)):
            await tables.submit(job_id, upload)
        assert await claimed(tables, "other", "named") == ["a", "b", "c"]

    backend.run(scenario)


def test_a_job_that_names_another_version_is_left_to_others_for_a_while(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a", NAMED)
        await tables.submit("b")
        assert await claimed(tables, "other") == ["b"]
        await waited(tables, STRANDED_S - 5)
        assert await claimed(tables, "other") == []
        assert await claimed(tables) == []
        await waited(tables, 5)
        assert await claimed(tables, "other") == ["a"]

    backend.run(scenario)


def test_a_job_that_names_a_version_and_whose_worker_died_is_left_to_others_too(
    backend: Backend,
) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a", NAMED)
        assert await claimed(tables, "named") == ["a"]
        tables.leases.release_lease("a")
        await waited(tables, LEASE_S)
        assert await claimed(tables, "other") == []
        assert await claimed(tables, "named") == ["a"]
        tables.leases.release_lease("a")
        await waited(tables, LEASE_S + STRANDED_S)
        assert await claimed(tables, "other") == ["a"]

    backend.run(scenario)


def test_progress_never_goes_back(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        job = await tables.claim()
        for told, shown in ((10, 10), (50, 50), (30, 50), (95, 95)):
            await tables.leases.advance(job, told, "step")
            assert (await tables.get("a")).progress == shown
        await tables.complete(job)
        done = await tables.get("a")
        assert (done.state, done.progress, done.model_version) == ("completed", 100, "v1")
        assert done.finished_at is not None
        assert done.started_at is not None
        assert done.created_at <= done.started_at <= done.finished_at <= done.read_at

    backend.run(scenario)


def test_every_change_is_an_event(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        job = await tables.claim()
        await tables.leases.advance(job, 10, "Converting")
        await tables.leases.renew()
        await tables.complete(job)
        events = await tables.feed.missed("a", after=0)
        assert [event.revision for event in events] == [1, 2, 3, 4, 5]
        documents = [json.loads(event.data) for event in events]
        states = [(document["status"], document["progress"]) for document in documents]
        assert states == [
            ("queued", 0),
            ("running", 0),
            ("running", 10),
            ("running", 50),
            ("completed", 100),
        ]
        assert documents[-1] == status_document(await tables.get("a"))
        assert [event.revision for event in await tables.feed.missed("a", after=3)] == [4, 5]

    backend.run(scenario)


def test_a_finished_job_tells_until_when_it_is_kept(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        async def document(feed: EventFeed) -> dict[str, Any]:
            snapshot = await feed.get("a")
            assert snapshot is not None
            return await feed.document(snapshot)

        await tables.submit("a")
        assert "expires_at" not in await document(tables.feed)
        job = await tables.claim()
        assert "expires_at" not in await document(tables.feed)
        await tables.leases.fail(job, "not_audio", "no audio", 1)
        done = await document(tables.feed)
        finished, expires = (
            datetime.fromisoformat(done[name]) for name in ("finished_at", "expires_at")
        )
        assert expires - finished == timedelta(seconds=KEPT_S)

        endless = EventFeed(
            tables.database, EtaEstimator(tables.database, lambda: True), kept_s=1e15
        )
        assert (await document(endless))["expires_at"].startswith("9999-12-31T00:00:00")

    backend.run(scenario)


def test_no_time_is_told_that_nobody_can_know(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        async def left(*, model_ready: bool = True) -> float | None:
            estimates = EtaEstimator(tables.database, lambda: model_ready)
            return await estimates.seconds_left(await tables.get("b"), 1)

        await tables.submit("a")
        await tables.submit("b")
        assert await left() is None, "nothing is known yet"
        await tables.complete(await tables.claim())
        assert await left() == WORK_S
        assert await left(model_ready=False) is None
        job = await tables.claim()
        assert await left() is not None
        await tables.leases.retry(job, 1.0, "Waiting for another try", 1)
        assert await left() is None

    backend.run(scenario)


def test_a_lost_lease_writes_nothing(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        monkeypatch.setattr(leases_module, "LEASE_S", -1.0)
        stale = await tables.claim()
        assert await tables.leases.claim() is None, "nobody takes its own work a second time"
        tables.leases.release_lease("a")
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

    backend.run(scenario)


def test_a_commit_whose_answer_was_lost_may_be_repeated(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        job = await tables.claim()
        for _ in range(2):
            await tables.leases.complete(job, 1, {}, 1.0)
        assert len(await tables.feed.missed("a", after=2)) == 1

    backend.run(scenario)


def test_only_what_is_held_is_renewed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        with monkeypatch.context() as short:
            short.setattr(leases_module, "LEASE_S", -1.0)
            await tables.claim()
        tables.leases.release_lease("a")
        await tables.leases.renew()
        again = await tables.claim()
        assert again.lease == 2
        await tables.leases.renew()
        assert await tables.leases.claim() is None
        assert await tables.leases.held(["a", "b"]) == {"a"}

    backend.run(scenario)


def test_a_deleted_job_cannot_be_written(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        job = await tables.claim()
        assert await tables.table.delete("a")
        assert not await tables.table.delete("a")
        with pytest.raises(LeaseLostError):
            await tables.leases.complete(job, 1, {}, 1.0)
        assert await tables.table.get("a") is None
        assert await tables.feed.missed("a", after=0) == []

    backend.run(scenario)


def test_a_job_that_is_to_be_repeated_waits(backend: Backend) -> None:
    async def scenario(tables: Tables) -> None:
        await tables.submit("a")
        await tables.leases.retry(await tables.claim(), 60, "Waiting for another try", 1)
        assert await tables.leases.claim() is None
        assert (await tables.get("a")).attempts == 1

        await tables.submit("b")
        job = await tables.claim()
        await tables.leases.begin_generation(job, "v1", None, "Generating music...")
        await tables.leases.retry(job, 0, "Waiting in the queue", job.attempts)
        tables.leases.release_lease("b")
        again = await tables.claim()
        assert (again.id, again.lease, again.attempts, again.progress) == ("b", 2, 0, 50)

    backend.run(scenario)


def test_after_a_restart_what_ran_is_taken_at_once(tmp_path: Path) -> None:
    async def before(tables: Tables) -> None:
        for job_id in ("a", "b", "c"):
            await tables.submit(job_id)
        await tables.complete(await tables.claim())
        await tables.leases.mark_converted(await tables.claim(), 1, {})

    async def after(tables: Tables) -> None:
        assert (await tables.get("a")).state == "completed"
        orphan = await tables.claim()
        assert (orphan.id, orphan.lease, orphan.converted) == ("b", 2, True)
        assert (orphan.deaths, orphan.attempts) == (1, 0), "its process died, the job did not fail"
        assert (await tables.claim()).id == "c"
        assert await tables.leases.claim() is None

    Backend("", tmp_path / "jobs.sqlite").run(before, after)


def test_two_processes_never_take_the_same_job(postgres: PostgresServer) -> None:
    url = postgres.create_database(new_id())

    async def scenario() -> None:
        ours, theirs = await opened(url, Path()), await opened(url, Path())
        names = [f"job{number}" for number in range(20)]
        for name in names:
            await ours.submit(name)
        claims = (tables.leases.claim() for tables in (ours, theirs) for _ in range(20))
        taken = [job.id for job in await asyncio.gather(*claims) if job]
        assert sorted(taken) == sorted(names)
        for tables in (ours, theirs):
            await tables.database.close()

    asyncio.run(scenario())


def test_a_second_process_is_refused_by_sqlite(tmp_path: Path) -> None:
    async def scenario(tables: Tables) -> None:
        with pytest.raises(DatabaseInUseError, match="MUSICLAB_RUN_DIR"):
            await Database("", tmp_path / "jobs.sqlite").open()

    Backend("", tmp_path / "jobs.sqlite").run(scenario)


def test_a_database_of_another_layout_is_refused(backend: Backend) -> None:
    async def change(tables: Tables) -> None:
        def work(connection: sa.Connection) -> None:
            connection.execute(sa.update(layout).values(number=0))

        await tables.database.write(work)

    backend.run(change)
    with pytest.raises(SettingsError, match="another version of MusicLab"):
        backend.run(change)


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense"])
def test_an_address_at_fault_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="MUSICLAB_DATABASE_URL"):
        Database(url, tmp_path / "jobs.sqlite")


def test_a_commit_outlasts_a_power_failure(tmp_path: Path) -> None:
    async def scenario(tables: Tables) -> None:
        def work(connection: sa.Connection) -> tuple[str, int]:
            journal = connection.execute(sa.text("PRAGMA journal_mode")).scalar_one()
            synchronous = connection.execute(sa.text("PRAGMA synchronous")).scalar_one()
            return journal, synchronous

        assert await tables.database.read(work) == ("wal", 2)

    Backend("", tmp_path / "jobs.sqlite").run(scenario)


def test_a_restart_of_postgresql_is_waited_for(postgres: PostgresServer) -> None:
    url = postgres.create_database(new_id())

    async def scenario() -> None:
        tables = await opened(url, Path())
        await tables.submit("a")
        job = await tables.claim()
        restarting = asyncio.create_task(asyncio.to_thread(postgres.restart))
        for progress in range(10, 90):
            await tables.leases.advance(job, progress, "step")
            await asyncio.sleep(0.02)
        await restarting
        await tables.complete(job)
        assert (await tables.get("a")).state == "completed"
        await tables.database.close()

    asyncio.run(scenario())


def test_a_database_that_stays_away_is_said_to_be(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database("postgresql://nobody@127.0.0.1:1/none", tmp_path / "unused")
        with pytest.raises(DatabaseUnavailableError, match="does not answer"):
            await database.read(_nothing, patience_s=0.5)
        await database.close()

    asyncio.run(scenario())


def _nothing(connection: sa.Connection) -> None:
    pass
