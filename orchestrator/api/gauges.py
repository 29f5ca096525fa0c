"""What is so at the moment when Prometheus asks: of the jobs, the model and this machine."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, jobs
from orchestrator.errors import DatabaseUnavailableError, StorageUnavailableError
from orchestrator.jobs.table import READ_PATIENCE_S
from orchestrator.observability.metrics import Metrics
from orchestrator.serving.status import ModelStatus
from orchestrator.settings import Settings
from orchestrator.storage.base import DiskUsage, JobStorage

STATES = ("receiving", "queued", "running", "completed", "failed")


@dataclass(frozen=True)
class JobCounts:
    """What the table holds.

    Attributes:
        by_state: number of jobs.
        stored_bytes: of all jobs' files.
        oldest_queued_s: since the job was accepted that is queued and older than all others; 0 when
            none is queued.
        pinned: number of queued and running jobs by the version they asked for by name.
    """

    by_state: Mapping[str, int]
    stored_bytes: int
    oldest_queued_s: float
    pinned: Mapping[str, int]


@dataclass(frozen=True)
class Gauges(Collector):
    """One look at everything; `counts` and `disk` are None where they could not be reached."""

    settings: Settings
    model: ModelStatus
    counts: JobCounts | None
    disk: DiskUsage | None

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "musiclab_database_up", "Whether the database answers.", self.counts is not None
        )
        if self.counts is not None:
            yield from self._of_jobs(self.counts)
        yield _gauge(
            "musiclab_stored_limit_bytes",
            "Most that all jobs' files may take; 0 for no limit.",
            self.settings.max_stored_bytes,
        )
        if self.disk is not None:
            what = "of the disk that uploads are written to."
            yield _gauge("musiclab_disk_size_bytes", f"Size {what}", self.disk.size)
            yield _gauge("musiclab_disk_free_bytes", f"Free bytes {what}", self.disk.free)
        yield from self._of_model()
        yield _gauge("musiclab_host_cpus", "CPUs of this machine.", os.cpu_count() or 1)
        yield _gauge(
            "musiclab_host_load1",
            "Processes of this machine that run or wait for a CPU, mean of a minute.",
            os.getloadavg()[0],
        )

    def _of_jobs(self, counts: JobCounts) -> Iterator[Metric]:
        yield _by_label(
            "musiclab_jobs",
            "Jobs in the table, by state.",
            "state",
            {state: counts.by_state.get(state, 0) for state in STATES},
        )
        yield _gauge("musiclab_stored_bytes", "Bytes of all jobs' files.", counts.stored_bytes)
        yield _gauge(
            "musiclab_oldest_queued_job_age_seconds",
            "Seconds since the oldest queued job was accepted; 0 when none is queued.",
            counts.oldest_queued_s,
        )
        unpinned = dict.fromkeys((each.version for each in self.model.versions), 0)
        yield _by_label(
            "musiclab_jobs_pinned",
            "Queued and running jobs that asked for a version of the model by its name.",
            "model_version",
            unpinned | dict(counts.pinned),
        )

    def _of_model(self) -> Iterator[Metric]:
        model = self.model
        yield _gauge(
            "musiclab_model_ready", "Whether the default version has a ready worker.", model.ready
        )
        yield _by_label(
            "musiclab_model_ready_workers",
            "Ready workers of each loaded version of the model.",
            "model_version",
            {each.version: each.ready for each in model.versions},
        )
        names = ("model_version", "device", "codec", "checkpoint")
        info = GaugeMetricFamily(
            "musiclab_default_model_info", "What serves by default, when ready.", labels=names
        )
        if model.ready:
            values = (model.version, model.device, model.codec, model.checkpoint)
            info.add_metric([value or "" for value in values], 1)
        yield info


async def collect_gauges(
    database: Database, files: JobStorage, model: ModelStatus, settings: Settings
) -> Gauges:
    """The gauges, as they are now."""
    counts: JobCounts | None = None
    disk: DiskUsage | None = None
    with suppress(DatabaseUnavailableError):
        counts = await database.read(_count, READ_PATIENCE_S)
    with suppress(StorageUnavailableError):
        disk = await files.disk_usage()
    return Gauges(settings, model, counts, disk)


async def count_pinned(database: Database) -> Mapping[str, int] | None:
    """The same as JobCounts.pinned; None where the database could not be reached."""
    try:
        return await database.read(_count_pinned, READ_PATIENCE_S)
    except DatabaseUnavailableError:
        return None


def count_in_flight(metrics: Metrics) -> dict[str, int]:
    """Requests to the model that are not answered yet, by version; those without any left out."""
    return {
        sample.labels["model_version"]: int(sample.value)
        for family in metrics.inference_in_flight.collect()
        for sample in family.samples
        if sample.value
    }


def _count(connection: sa.Connection) -> JobCounts:
    by_state = connection.execute(
        sa.select(
            jobs.c.state,
            sa.func.count().label("number"),
            sa.func.coalesce(sa.func.sum(jobs.c.bytes), 0).label("bytes"),
            (NOW - sa.func.min(jobs.c.created_at)).label("age"),
        ).group_by(jobs.c.state)
    ).all()
    return JobCounts(
        by_state={row.state: row.number for row in by_state},
        stored_bytes=sum(row.bytes for row in by_state),
        oldest_queued_s=next((row.age for row in by_state if row.state == "queued"), 0.0),
        pinned=_count_pinned(connection),
    )


def _count_pinned(connection: sa.Connection) -> dict[str, int]:
    rows = connection.execute(
        sa.select(jobs.c.wanted_version, sa.func.count().label("number"))
        .where(jobs.c.state.in_(("queued", "running")), jobs.c.wanted_version.is_not(None))
        .group_by(jobs.c.wanted_version)
    )
    return {row.wanted_version: row.number for row in rows}


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _by_label(name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
