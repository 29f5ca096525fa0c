"""Database tables opened for a test, and operations on jobs in them."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from orchestrator.audio.window import Window
from orchestrator.database.engine import Database
from orchestrator.jobs.admission import Limits
from orchestrator.jobs.eta import EtaEstimator
from orchestrator.jobs.event_feed import EventFeed
from orchestrator.jobs.job import Job, Upload
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.submission_table import SubmissionTable
from orchestrator.jobs.table import JobTable

RETENTION_S = 3600.0
WORK_S = 3.0
NO_LIMITS = Limits(per_minute=0, queued=0, stored_bytes=0)
UPLOAD = Upload(
    extensions=(".mp3", ".wav"),
    windows=(Window(0, 16), Window(2.5, 18.5)),
    content="c" * 64,
    wanted_version=None,
    size=1000,
)


@dataclass(frozen=True)
class Tables:
    """One process's access to a database."""

    database: Database
    table: JobTable
    leases: Leases

    def submissions(self, limits: Limits = NO_LIMITS) -> SubmissionTable:
        return SubmissionTable(self.database, self.leases.owner, limits)

    @property
    def feed(self) -> EventFeed:
        return EventFeed(self.database, EtaEstimator(self.database, lambda: True), RETENTION_S)

    async def submit(self, job_id: str, upload: Upload = UPLOAD) -> None:
        """Queue a job, as POST /api/generate does."""
        await self.submissions().admit(job_id, "192.0.2.1", upload.size, repeated=False)

        def work(connection: sa.Connection) -> None:
            self.table.submit(job_id, upload, connection)

        await self.database.write(work)

    async def claim(self) -> Job:
        job = await self.leases.claim()
        assert job is not None
        return job

    async def get(self, job_id: str) -> Job:
        job = await self.table.get(job_id)
        assert job is not None
        return job

    async def complete(self, job: Job) -> None:
        await self.leases.begin_generation(job, "v1", "starter", "Generating music...")
        await self.leases.complete(job, 768_000, {"generate": 2.0}, WORK_S)


@dataclass(frozen=True)
class Backend:
    """A database used by one test; `url` is empty for SQLite."""

    url: str
    file: Path

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Tables]:
        """Open the tables as a process does at startup."""
        database = Database(self.url, self.file)
        await database.open()
        try:
            leases = Leases(database)
            await leases.expire_previous()
            yield Tables(database, JobTable(database), leases)
        finally:
            await database.close()


def new_id() -> str:
    return uuid.uuid4().hex
