"""The tables at the time Alembic was introduced."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    layout = op.create_table("layout", sa.Column("number", sa.Integer, primary_key=True))
    # These two may exist if an earlier version was killed during its first start.
    op.create_table(
        "identity", sa.Column("id", sa.String(32), primary_key=True), if_not_exists=True
    )
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("document", sa.JSON, nullable=False),
        if_not_exists=True,
    )
    _create_jobs()
    _create_submissions()
    op.create_table(
        "workers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("status", sa.JSON, nullable=False),
    )
    op.bulk_insert(layout, [{"number": 1}])


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("error_code", sa.String(80)),
        sa.Column("extensions", sa.JSON),
        sa.Column("windows", sa.JSON),
        sa.Column("content", sa.String(64)),
        sa.Column("wanted_version", sa.String(128)),
        sa.Column("model_version", sa.String(128)),
        sa.Column("codec", sa.String(20)),
        sa.Column("converted", sa.Boolean, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("run_at", sa.Double),
        sa.Column("created_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("timings", sa.JSON, nullable=False),
    )
    op.create_index("jobs_state", "jobs", ["state", "created_at"])
    op.create_index("jobs_content", "jobs", ["content"])


def _create_submissions() -> None:
    op.create_table(
        "submissions",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("client", sa.String(64)),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("idempotency_key", sa.String(255), unique=True),
        sa.Column("body", sa.String(64)),
        sa.Column("work_seconds", sa.Double),
        sa.Column("forget_at", sa.Double, nullable=False),
    )
    op.create_index("submissions_client", "submissions", ["client", "at"])
    op.create_index("submissions_forget", "submissions", ["forget_at"])
