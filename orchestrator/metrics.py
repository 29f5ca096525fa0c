"""The orchestrator's own metrics for Prometheus."""

import prometheus_client
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from orchestrator.database import Database
from orchestrator.jobs import READ_PATIENCE_S
from orchestrator.schema import jobs
from orchestrator.torchserve import ModelStatus

# Prometheus itself knows when a counter began.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
STATES = ("receiving", "queued", "running", "completed", "failed")


class Metrics:
    """One process' metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Gauge(
            "musiclab_jobs", "Jobs in the table, by state.", ["state"], registry=self.registry
        )
        self.stored_bytes = Gauge(
            "musiclab_stored_bytes", "Bytes of all jobs' files.", registry=self.registry
        )
        self.at_work = Gauge(
            "musiclab_jobs_at_work", "Jobs this process is working on.", registry=self.registry
        )
        self.finished = Counter(
            "musiclab_jobs_finished",
            "Jobs this process has brought to an end, by outcome: completed or an error code.",
            ["outcome"],
            registry=self.registry,
        )
        self.failed_attempts = Counter(
            "musiclab_failed_attempts",
            "Attempts at jobs that this process gave up and will repeat.",
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "musiclab_stage_seconds",
            "Seconds of a job's stages: queued, convert, wait, generate, save.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.accepted = Counter(
            "musiclab_jobs_accepted", "Jobs this process has accepted.", registry=self.registry
        )
        self.reused = Counter(
            "musiclab_results_reused",
            "Jobs that were answered with the result of an earlier one.",
            registry=self.registry,
        )
        self.uploaded_bytes = Counter(
            "musiclab_uploaded_bytes", "Bytes of tracks received.", registry=self.registry
        )
        self.refused = Counter(
            "musiclab_refused_requests",
            "Requests answered with an error, by its code.",
            ["code"],
            registry=self.registry,
        )
        self.inference_in_flight = Gauge(
            "musiclab_inference_requests_in_flight",
            "Requests this process has sent to the model that are not answered yet, by version.",
            ["model_version"],
            registry=self.registry,
        )
        self.pinned = Gauge(
            "musiclab_jobs_pinned",
            "Queued and running jobs that asked for a version of the model by its name.",
            ["model_version"],
            registry=self.registry,
        )

    async def look(self, database: Database, model: ModelStatus) -> None:
        """Count what is in the table."""
        query = sa.select(
            jobs.c.state, sa.func.count(), sa.func.coalesce(sa.func.sum(jobs.c.bytes), 0)
        ).group_by(jobs.c.state)
        pinned = (
            sa.select(jobs.c.wanted_version.label("version"), sa.func.count().label("number"))
            .where(jobs.c.state.in_(("queued", "running")), jobs.c.wanted_version.is_not(None))
            .group_by(jobs.c.wanted_version)
        )

        def work(connection: sa.Connection) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
            by_state = {state: (count, size) for state, count, size in connection.execute(query)}
            by_version = {row.version: row.number for row in connection.execute(pinned)}
            return by_state, by_version

        found, by_version = await database.read(work, READ_PATIENCE_S)
        self.pinned.clear()
        for version in {each.version for each in model.versions} | by_version.keys():
            self.pinned.labels(version).set(by_version.get(version, 0))
        for state in STATES:
            self.jobs.labels(state).set(found.get(state, (0, 0))[0])
        self.stored_bytes.set(sum(size for _, size in found.values()))
