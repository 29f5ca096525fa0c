"""Reads jobs for status requests and event streams.

Concurrent status requests are combined into one query. One poll, repeated a few times a second,
serves all event streams of this process. Hundreds of clients therefore cost little more than one,
regardless of which process changes the jobs.
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
from orchestrator.jobs.table import IS_ACCEPTED, JOB_COLUMNS, SHORT_RETRY_TIMEOUT_S, job_from_row

INTERVAL_S = 0.25


@dataclass(frozen=True)
class JobSnapshot:
    """The current state of a job; `position` is its queue position while it waits."""

    job: Job
    position: int | None


@dataclass(frozen=True)
class Event:
    """A status document, encoded once for all subscribers.

    Attributes:
        revision: revision of the job; None when the job was deleted.
        position: queue position, while the job waits.
        data: the status document as JSON.
        final: whether this is the last event of the job.
        model_version: the version that generates the music; None until it is chosen, and for a
            deleted job.
    """

    revision: int | None
    position: int | None
    data: str
    final: bool
    model_version: str | None = None

    def follows(self, sent: "Event") -> bool:
        """Returns whether this event adds information for a client that has received `sent`."""
        if self.revision is None or sent.revision is None:
            return True
        if self.revision == sent.revision:
            return self.position != sent.position
        return self.revision > sent.revision


class Subscription:
    """The events of one job for one subscriber; `next` returns None at shutdown."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(self, event: Event | None) -> None:
        self._events.put_nowait(event)

    async def next(self, timeout_s: float) -> Event | None:
        """Waits for the next event.

        Raises:
            TimeoutError: there was none within `timeout_s` seconds.
        """
        return await asyncio.wait_for(self._events.get(), timeout_s)


class EventFeed:
    """Publishes the status of jobs to the clients of this process.

    Args:
        retention_s: seconds for which a finished job is kept.
    """

    def __init__(self, database: Database, estimator: EtaEstimator, retention_s: float) -> None:
        self._database = database
        self._estimator = estimator
        self._retention_s = retention_s
        self._requested: dict[str, asyncio.Future[JobSnapshot | None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._published: dict[str, tuple[int, int | None]] = {}
        self._has_subscriptions = asyncio.Event()

    async def get(self, job_id: str) -> JobSnapshot | None:
        """Returns the state of a job at or after the time of the call; None if it does not exist.

        Raises:
            DatabaseUnavailableError: the database is unreachable.
        """
        if job_id not in self._requested:
            self._requested[job_id] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_requested())
        return await asyncio.shield(self._requested[job_id])

    async def document(self, snapshot: JobSnapshot) -> dict[str, Any]:
        """Returns the job's status with the fields that change without a new revision.

        These are the queue position and the time left or, for a finished job, its expiry time.
        Stored events lack them.
        """
        document = status_document(snapshot.job)
        if snapshot.job.finished_at is not None:
            document["expires_at"] = iso_time(snapshot.job.finished_at + self._retention_s)
            return document
        document["eta_seconds"] = await self._estimator.seconds_left(
            snapshot.job, snapshot.position
        )
        if snapshot.position is not None:
            document["queue_position"] = snapshot.position
        return document

    async def events_after(self, job_id: str, after: int) -> list[Event]:
        """Returns the stored events of all revisions later than `after`."""
        query = (
            sa.select(events.c.revision, events.c.document)
            .where(events.c.job_id == job_id, events.c.revision > after)
            .order_by(events.c.revision)
        )

        def work(connection: sa.Connection) -> list[Event]:
            rows = connection.execute(query)
            return [event_of(revision, document) for revision, document in rows]

        return await self._database.read(work, SHORT_RETRY_TIMEOUT_S)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """Subscribes to all later changes of a job, for the duration of the block."""
        subscription = Subscription()
        self._subscriptions[job_id].add(subscription)
        self._has_subscriptions.set()
        try:
            yield subscription
        finally:
            self._subscriptions[job_id].discard(subscription)
            if not self._subscriptions[job_id]:
                del self._subscriptions[job_id]
                self._published.pop(job_id, None)

    def close(self) -> None:
        """Ends all subscriptions."""
        for job_id in list(self._subscriptions):
            self._publish(job_id, None)

    async def run(self) -> None:
        """Polls the database and publishes changes until cancelled."""
        await run_periodically(self._poll, INTERVAL_S, "event poll failed")

    async def _read_requested(self) -> None:
        while self._requested:
            requested, self._requested = self._requested, {}
            try:
                snapshots = await self._snapshots(list(requested))
            except Exception as error:
                for future in requested.values():
                    future.set_exception(error)
                    future.exception()  # marks it as retrieved: the client may have disconnected
                continue
            for job_id, future in requested.items():
                future.set_result(snapshots.get(job_id))

    async def _snapshots(self, job_ids: Sequence[str]) -> dict[str, JobSnapshot]:
        query = sa.select(*JOB_COLUMNS).where(jobs.c.id.in_(job_ids), IS_ACCEPTED)

        def work(connection: sa.Connection) -> dict[str, JobSnapshot]:
            found = [job_from_row(row) for row in connection.execute(query).mappings()]
            positions = {}
            if any(job.state == "queued" for job in found):
                waiting = connection.execute(_QUEUE).scalars()
                positions = {job_id: position for position, job_id in enumerate(waiting, 1)}
            return {job.id: JobSnapshot(job, positions.get(job.id)) for job in found}

        return await self._database.read(work, SHORT_RETRY_TIMEOUT_S)

    async def _poll(self) -> None:
        if not self._subscriptions:
            self._has_subscriptions.clear()
            await self._has_subscriptions.wait()
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
        """Publishes the revisions since the last poll, and then the current status."""
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
    """Converts a status document to an event."""
    position = document.get("queue_position")
    final = document["status"] in FINAL
    version = document["model_version"]
    return Event(revision, position, json.dumps(document), final, version)
