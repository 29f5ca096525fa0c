"""The job table: queue, state and record in one; there is no second truth.

A worker claims a job with a lease, renews it while it works, and writes only while it holds it:
every write names the lease's owner and attempt, so that a worker whose lease ended cannot touch the
work of the next one. The clock is the database's. The database is an SQLite file, which one process
owns.
"""

import asyncio
import fcntl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from orchestrator.errors import DatabaseInUseError, LeaseLostError
from orchestrator.windows import Window

LEASE_S = 15.0
MAX_ATTEMPTS = 5

State = Literal["queued", "running", "completed", "failed"]

metadata = sa.MetaData()
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("progress", sa.Integer, nullable=False, default=0),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("error_code", sa.String(40)),
    sa.Column("extensions", sa.JSON, nullable=False),
    sa.Column("windows", sa.JSON, nullable=False),
    sa.Column("converted", sa.Boolean, nullable=False, default=False),
    sa.Column("owner", sa.String(64)),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("lease_until", sa.Float),
    sa.Column("run_at", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Index("jobs_ready", "state", "run_at"),
)
# Seconds since 1970 by the database's clock.
NOW: sa.ColumnElement[float] = (sa.func.julianday("now") - 2440587.5) * 86400.0


@dataclass(frozen=True)
class Job:
    """One row.

    Attributes:
        extensions: of both uploads, with the dot.
        windows: the chosen window of each track.
        converted: whether both tracks are WAV files of just their windows by now.
        attempt: how often a worker has taken it, this time included.
        created_at, started_at, finished_at: seconds since 1970.
    """

    id: str
    state: State
    progress: int
    message: str
    error_code: str | None
    extensions: tuple[str, str]
    windows: tuple[Window, Window]
    converted: bool
    attempt: int
    created_at: float
    started_at: float | None
    finished_at: float | None


class JobTable:
    """The table in one SQLite file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._owner = uuid.uuid4().hex
        self._lock_file: IO[str] | None = None
        # One writer at a time within the process, so that none waits busily for another's lock.
        self._writing = asyncio.Lock()
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        event.listen(self._engine.sync_engine, "connect", _configure)

    async def open(self) -> None:
        """Create the table where there is none, and put back in the queue what a dead process ran.

        Raises:
            DatabaseInUseError: another process owns the file.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = self._file.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise DatabaseInUseError(
                f"another process uses {self._file}; stop it, or set MUSICLAB_RUN_DIR to another "
                "folder"
            ) from None
        async with self._write() as connection:
            await connection.run_sync(metadata.create_all)
            # The kernel drops a dead process' lock, so whatever runs now has no worker any more.
            await connection.execute(
                sa.update(jobs).where(jobs.c.state == "running").values(lease_until=0)
            )

    async def close(self) -> None:
        await self._engine.dispose()
        if self._lock_file is not None:
            self._lock_file.close()

    async def submit(
        self, job_id: str, extensions: tuple[str, str], windows: tuple[Window, Window]
    ) -> None:
        """Add a job to the queue; returns once that outlasts a power failure."""
        row = {
            "id": job_id,
            "state": "queued",
            "message": "Waiting in the queue",
            "extensions": list(extensions),
            "windows": [[window.start, window.end] for window in windows],
            "run_at": NOW,
            "created_at": NOW,
        }
        async with self._write() as connection:
            await connection.execute(sa.insert(jobs).values(row))

    async def get(self, job_id: str) -> Job | None:
        async with self._engine.connect() as connection:
            found = await connection.execute(sa.select(jobs).where(jobs.c.id == job_id))
            row = found.mappings().first()
        return None if row is None else _job(row)

    async def queue_position(self, job: Job) -> int:
        """How many jobs are taken before this queued one, plus one."""
        ahead = sa.select(sa.func.count()).where(
            jobs.c.state == "queued",
            sa.tuple_(jobs.c.created_at, jobs.c.id) < sa.tuple_(job.created_at, job.id),
        )
        async with self._engine.connect() as connection:
            return int((await connection.execute(ahead)).scalar_one()) + 1

    async def claim(self) -> Job | None:
        """Lease the job that has waited longest, or one whose lease ended; None if there is none.

        A job that was taken too often already is failed instead.
        """
        ready = sa.and_(jobs.c.state == "queued", jobs.c.run_at <= NOW)
        abandoned = sa.and_(jobs.c.state == "running", jobs.c.lease_until < NOW)
        next_id = (
            sa.select(jobs.c.id)
            .where(sa.or_(ready, abandoned))
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(1)
            .scalar_subquery()
        )
        take = (
            sa.update(jobs)
            .where(jobs.c.id == next_id)
            .values(
                state="running",
                owner=self._owner,
                attempt=jobs.c.attempt + 1,
                lease_until=NOW + LEASE_S,
                started_at=sa.func.coalesce(jobs.c.started_at, NOW),
            )
            .returning(*jobs.c)
        )
        async with self._write() as connection:
            row = (await connection.execute(take)).mappings().first()
        return None if row is None else _job(row)

    async def renew(self, job: Job) -> None:
        """Prolong the lease. Raises LeaseLostError, as every write of a worker does."""
        await self._update(job)

    async def advance(self, job: Job, progress: int, message: str) -> None:
        """Show a step of the work; progress never goes back."""
        further = sa.func.max(jobs.c.progress, progress)
        await self._update(job, progress=further, message=message)

    async def mark_converted(self, job: Job) -> None:
        await self._update(job, converted=True)

    async def complete(self, job: Job) -> None:
        await self._update(
            job,
            state="completed",
            progress=100,
            message="Music generation complete!",
            finished_at=NOW,
        )

    async def fail(self, job: Job, code: str, sentence: str) -> None:
        await self._update(job, state="failed", error_code=code, message=sentence, finished_at=NOW)

    async def retry(self, job: Job, after_s: float) -> None:
        """Put the job back in the queue; it was at work, and may be so again in a while."""
        await self._update(
            job, state="queued", run_at=NOW + after_s, message="Waiting for another try"
        )

    async def hand_back(self, job: Job) -> None:
        """Put the job back in the queue as if it had not been taken."""
        await self._update(job, state="queued", run_at=NOW, attempt=jobs.c.attempt - 1)

    async def delete(self, job_id: str) -> bool:
        """Remove the job in whatever state; False if there is none."""
        async with self._write() as connection:
            removed = await connection.execute(sa.delete(jobs).where(jobs.c.id == job_id))
        return removed.rowcount > 0

    async def _update(self, job: Job, **values: Any) -> None:
        """Write as the holder of the lease, and renew it."""
        held = sa.and_(
            jobs.c.id == job.id,
            jobs.c.owner == self._owner,
            jobs.c.attempt == job.attempt,
            jobs.c.state == "running",
        )
        async with self._write() as connection:
            written = await connection.execute(
                sa.update(jobs).where(held).values(lease_until=NOW + LEASE_S, **values)
            )
        if written.rowcount == 0:
            raise LeaseLostError(f"job {job.id} was deleted or taken over")

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        async with self._writing, self._engine.begin() as connection:
            yield connection


def _configure(connection: Any, _record: Any) -> None:
    """Readers beside one writer, and a commit that outlasts a power failure."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _job(row: sa.RowMapping) -> Job:
    first, second = (Window(start, end) for start, end in row["windows"])
    extension1, extension2 = row["extensions"]
    kept = {field: row[field] for field in Job.__dataclass_fields__ if field in row}
    return Job(**kept | {"windows": (first, second), "extensions": (extension1, extension2)})


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
