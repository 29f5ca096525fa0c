"""The tables, and the database clock that provides all times in them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = sa.MetaData()


class now(FunctionElement[float]):  # noqa: N801 - named like SQL functions
    """Seconds since 1970 by the database's clock, so that hosts' clocks may differ."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_in_sqlite(_element: Any, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_in_postgresql(_element: Any, _compiler: Any, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


NOW = now()

# A database with another number is rejected. It stays 1: changes to the tables are revisions in
# `migrations`. Versions without revisions check only this number.
LAYOUT = 1
# Alembic's table. It is not called `alembic_version`, because another application may use the same
# schema.
VERSION_TABLE = "musiclab_alembic_version"
layout = sa.Table("layout", metadata, sa.Column("number", sa.Integer, primary_key=True))

# One row: the database ID, which the job storage records to identify its owner.
identity = sa.Table("identity", metadata, sa.Column("id", sa.String(32), primary_key=True))

# The queue, and the state and history of every job that was not deleted.
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    # "receiving" during the upload: every file has a row before it is written.
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, default=0),  # of the status
    sa.Column("progress", sa.Integer, nullable=False, default=0),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("error_code", sa.String(80)),
    sa.Column("extensions", sa.JSON),
    sa.Column("windows", sa.JSON),
    sa.Column("content", sa.String(64)),  # hash of both files and windows
    sa.Column("wanted_version", sa.String(128)),
    sa.Column("model_version", sa.String(128)),
    sa.Column("codec", sa.String(20)),
    sa.Column("converted", sa.Boolean, nullable=False, default=False),
    sa.Column("bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("owner", sa.String(64)),
    sa.Column("lease", sa.Integer, nullable=False, default=0),
    sa.Column("lease_until", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("deaths", sa.Integer, nullable=False, default=0),  # leases that expired
    sa.Column("run_at", sa.Double),
    sa.Column("created_at", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("timings", sa.JSON, nullable=False, default=dict),
    sa.Index("jobs_state", "state", "created_at"),
    sa.Index("jobs_content", "content"),
)

# The status document of each revision of a job, so that a client that reconnects to the event
# stream misses nothing.
events = sa.Table(
    "events",
    metadata,
    sa.Column("job_id", sa.String(32), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("document", sa.JSON, nullable=False),
)

# Data about requests, kept longer than their jobs.
submissions = sa.Table(
    "submissions",
    metadata,
    sa.Column("job_id", sa.String(32), primary_key=True),
    sa.Column("client", sa.String(64)),  # None if the rate limit does not count it
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("body", sa.String(64)),  # hash of the form's content
    sa.Column("work_seconds", sa.Double),  # from claim to completion
    sa.Column("forget_at", sa.Double, nullable=False),
    sa.Index("submissions_client", "client", "at"),
    sa.Index("submissions_forget", "forget_at"),
)

# The worker processes, and the status of each one's model server.
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Column("status", sa.JSON, nullable=False),
)
