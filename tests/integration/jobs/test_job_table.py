"""The job table on both databases: submissions, progress, events and estimates."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.errors import UploadExpiredError
from orchestrator.jobs.eta import EtaEstimator
from orchestrator.jobs.event_feed import EventFeed
from orchestrator.jobs.job import status_document
from tests.support.tables import RETENTION_S, UPLOAD, WORK_S, Tables


async def test_a_submitted_job_can_be_read(tables: Tables) -> None:
    await tables.submit("a")
    job = await tables.get("a")
    assert (job.state, job.progress, job.attempts, job.lease) == ("queued", 0, 0, 0)
    assert (job.extensions, job.windows) == (UPLOAD.extensions, UPLOAD.windows)
    assert job.started_at is None
    assert await tables.table.get("b") is None


async def test_an_incomplete_upload_is_not_a_job(tables: Tables) -> None:
    await tables.submissions().admit("a", "192.0.2.1", 10, repeated=False)
    assert await tables.table.get("a") is None
    assert await tables.leases.claim() is None
    await tables.submissions().withdraw("a")
    with pytest.raises(UploadExpiredError, match="too long"):

        def work(connection: sa.Connection) -> None:
            tables.table.submit("a", UPLOAD, connection)

        await tables.database.write(work)


async def test_progress_never_decreases(tables: Tables) -> None:
    await tables.submit("a")
    job = await tables.claim()
    for reported, expected in ((10, 10), (50, 50), (30, 50), (95, 95)):
        await tables.leases.advance(job, reported, "step")
        assert (await tables.get("a")).progress == expected
    await tables.complete(job)
    done = await tables.get("a")
    assert (done.state, done.progress, done.model_version) == ("completed", 100, "v1")
    assert done.finished_at is not None
    assert done.started_at is not None
    assert done.created_at <= done.started_at <= done.finished_at <= done.read_at


async def test_every_change_is_recorded_as_an_event(tables: Tables) -> None:
    await tables.submit("a")
    job = await tables.claim()
    await tables.leases.advance(job, 10, "Converting")
    await tables.leases.renew()
    await tables.complete(job)
    events = await tables.feed.events_after("a", after=0)
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
    assert [event.revision for event in await tables.feed.events_after("a", after=3)] == [4, 5]


async def test_a_finished_job_has_an_expiry_time(tables: Tables) -> None:
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
    assert expires - finished == timedelta(seconds=RETENTION_S)

    endless = EventFeed(
        tables.database, EtaEstimator(tables.database, lambda: True), retention_s=1e15
    )
    assert (await document(endless))["expires_at"].startswith("9999-12-31T00:00:00")


async def test_the_remaining_time_is_unknown_if_it_cannot_be_estimated(tables: Tables) -> None:
    async def remaining(*, model_ready: bool = True) -> float | None:
        estimates = EtaEstimator(tables.database, lambda: model_ready)
        return await estimates.seconds_left(await tables.get("b"), 1)

    await tables.submit("a")
    await tables.submit("b")
    assert await remaining() is None, "no job has been completed yet"
    await tables.complete(await tables.claim())
    assert await remaining() == WORK_S
    assert await remaining(model_ready=False) is None
    job = await tables.claim()
    assert await remaining() is not None
    await tables.leases.retry(job, 1.0, "Waiting for another try", 1)
    assert await remaining() is None


async def test_a_retried_job_waits_and_keeps_its_progress(tables: Tables) -> None:
    await tables.submit("a")
    await tables.leases.retry(await tables.claim(), 60, "Waiting for another try", 1)
    assert await tables.leases.claim() is None
    assert (await tables.get("a")).attempts == 1

    await tables.submit("b")
    job = await tables.claim()
    await tables.leases.begin_generation(job, "v1", None, "Generating music...")
    await tables.leases.retry(job, 0, "Waiting in the queue", job.attempts)
    tables.leases.release("b")
    again = await tables.claim()
    assert (again.id, again.lease, again.attempts, again.progress) == ("b", 2, 0, 50)
