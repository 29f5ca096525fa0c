"""Shows jobs to single requests and to followers, however many they are.

What is requested at the same time is read in one go, and one poll a few times a second serves all
followers of this process. So hundreds of them cost little more than one, whichever process changes
the jobs.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from orchestrator.concurrency import run_periodically
from orchestrator.database.engine import Database
from orchestrator.database.schema import events, jobs
from orchestrator.jobs.eta import EtaEstimator
from orchestrator.jobs.job import FINAL, Job, iso_time, status_document
from orchestrator.jobs.table import IS_ACCEPTED, JOB_COLUMNS, READ_PATIENCE_S, job_from_row

INTERVAL_S = 0.25


@dataclass(frozen=True)
class JobSnapshot:
    """A job as it is now; `position` is its place in the queue while it waits."""

    job: Job
    position: int | None


@dataclass(frozen=True)
class Event:
    """A status document, encoded once for all who are told.

    Attributes:
        revision: of the job; None when the job is gone.
        position: in the queue, while the job waits.
        final: nothing comes after it.
        model_version: that makes the music, or made it; None while it is not chosen, or unknown.
    """

    revision: int | None
    position: int | None
    data: str
    final: bool
    model_version: str | None = None

    def follows(self, sent: "Event") -> bool:
        """Whether this tells something new to those who know `sent`."""
        if self.revision is None or sent.revision is None:
            return True
        if self.revision == sent.revision:
            return self.position != sent.position
        return self.revision > sent.revision


class Subscription:
    """What one follower of one job is told; None when the process is about to end."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(self, event: Event | None) -> None:
        self._events.put_nowait(event)

    async def next(self, timeout_s: float) -> Event | None:
        """Raises TimeoutError: nothing changed in that time."""
        return await asyncio.wait_for(self._events.get(), timeout_s)


class EventFeed:
    """All that this process tells of jobs.

    Args:
        kept_s: seconds for which a finished job stays.
    """

    def __init__(self, database: Database, estimator: EtaEstimator, kept_s: float) -> None:
        self._database = database
        self._estimator = estimator
        self._kept_s = kept_s
        self._requested: dict[str, asyncio.Future[JobSnapshot | None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._published: dict[str, tuple[int, int | None]] = {}
        self._followed = asyncio.Event()

    async def get(self, job_id: str) -> JobSnapshot | None:
        """The job, read after this was called; None if there is none.

        Raises:
            DatabaseUnavailableError: it does not answer.
        """
        if job_id not in self._requested:
            self._requested[job_id] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_requested())
        return await asyncio.shield(self._requested[job_id])

    async def document(self, snapshot: JobSnapshot) -> dict[str, Any]:
        """The job's status with what changes by itself: its place, and the time left.

        Of a finished job, until when it stays: no event of the past has that, as it is the last.
        """
        document = status_document(snapshot.job)
        if snapshot.job.finished_at is not None:
            document["expires_at"] = iso_time(snapshot.job.finished_at + self._kept_s)
            return document
        document["eta_seconds"] = await self._estimator.seconds_left(
            snapshot.job, snapshot.position
        )
        if snapshot.position is not None:
            document["queue_position"] = snapshot.position
        return document

    async def events_after(self, job_id: str, after: int) -> list[Event]:
        """What the job's status said in every revision after that one."""
        query = (
            sa.select(events.c.revision, events.c.document)
            .where(events.c.job_id == job_id, events.c.revision > after)
            .order_by(events.c.revision)
        )

        def work(connection: sa.Connection) -> list[Event]:
            rows = connection.execute(query)
            return [event_of(revision, document) for revision, document in rows]

        return await self._database.read(work, READ_PATIENCE_S)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """Follow a job: every later change is told."""
        subscription = Subscription()
        self._subscriptions[job_id].add(subscription)
        self._followed.set()
        try:
            yield subscription
        finally:
            self._subscriptions[job_id].discard(subscription)
            if not self._subscriptions[job_id]:
                del self._subscriptions[job_id]
                self._published.pop(job_id, None)

    def close(self) -> None:
        """End all subscriptions."""
        for job_id in list(self._subscriptions):
            self._publish(job_id, None)

    async def run(self) -> None:
        """Look until cancelled."""
        await run_periodically(self._poll, INTERVAL_S, "events are late")

    async def _read_requested(self) -> None:
        while self._requested:
            requested, self._requested = self._requested, {}
            try:
                snapshots = await self._snapshots(list(requested))
            except Exception as error:
                for future in requested.values():
                    future.set_exception(error)
                    future.exception()  # the requester may have gone
                continue
            for job_id, future in requested.items():
                future.set_result(snapshots.get(job_id))

    async def _snapshots(self, job_ids: Sequence[str]) -> dict[str, JobSnapshot]:
        query = sa.select(*JOB_COLUMNS).where(jobs.c.id.in_(job_ids), IS_ACCEPTED)

        def work(connection: sa.Connection) -> dict[str, JobSnapshot]:
            found = [job_from_row(row) for row in connection.execute(query).mappings()]
            places = {}
            if any(job.state == "queued" for job in found):
                waiting = connection.execute(_QUEUE).scalars()
                places = {job_id: place for place, job_id in enumerate(waiting, 1)}
            return {job.id: JobSnapshot(job, places.get(job.id)) for job in found}

        return await self._database.read(work, READ_PATIENCE_S)

    async def _poll(self) -> None:
        if not self._subscriptions:
            self._followed.clear()
            await self._followed.wait()
        followed = list(self._subscriptions)
        snapshots = await self._snapshots(followed)
        for job_id in followed:
            snapshot = snapshots.get(job_id)
            if snapshot is None:
                gone = {"job_id": job_id, "status": "deleted"}
                self._publish(job_id, Event(None, None, json.dumps(gone), final=True))
                continue
            now, before = (snapshot.job.revision, snapshot.position), self._published.get(job_id)
            if now != before:
                await self._publish_changes(snapshot, before)
                self._published[job_id] = now

    async def _publish_changes(
        self, snapshot: JobSnapshot, before: tuple[int, int | None] | None
    ) -> None:
        """What was between two looks as it was, and then the present status."""
        job = snapshot.job
        if before is not None and job.revision > before[0] + 1:
            for event in await self.events_after(job.id, before[0]):
                if event.revision is not None and event.revision < job.revision:
                    self._publish(job.id, event)
        self._publish(job.id, event_of(job.revision, await self.document(snapshot)))

    def _publish(self, job_id: str, event: Event | None) -> None:
        for subscription in self._subscriptions.get(job_id, ()):
            subscription.put(event)


_QUEUE = sa.select(jobs.c.id).where(jobs.c.state == "queued").order_by(jobs.c.created_at, jobs.c.id)


def event_of(revision: int, document: dict[str, Any]) -> Event:
    """A status document as an event."""
    position = document.get("queue_position")
    final = document["status"] in FINAL
    version = document["model_version"]
    return Event(revision, position, json.dumps(document), final, version)
