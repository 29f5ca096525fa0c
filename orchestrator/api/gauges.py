"""Gauges of the jobs, the model and this host, collected at each Prometheus scrape."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.database.engine import Database
from orchestrator.errors import DatabaseUnavailableError, StorageUnavailableError
from orchestrator.jobs.counts import JobCounts, count_jobs
from orchestrator.serving.status import ModelStatus
from orchestrator.settings import Settings
from orchestrator.storage.base import DiskUsage, JobStorage

STATES = ("receiving", "queued", "running", "completed", "failed")


@dataclass(frozen=True)
class Gauges(Collector):
    """A snapshot of all gauges; `counts` and `disk` are None if they could not be read."""

    settings: Settings
    model: ModelStatus
    counts: JobCounts | None
    disk: DiskUsage | None

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "musiclab_database_up", "Whether the database is reachable.", self.counts is not None
        )
        if self.counts is not None:
            yield from self._job_metrics(self.counts)
        yield _gauge(
            "musiclab_stored_limit_bytes",
            "Maximum total size of all jobs' files; 0 for no limit.",
            self.settings.max_stored_bytes,
        )
        if self.disk is not None:
            disk = "of the disk that uploads are written to."
            yield _gauge("musiclab_disk_size_bytes", f"Size {disk}", self.disk.size)
            yield _gauge("musiclab_disk_free_bytes", f"Free bytes {disk}", self.disk.free)
        yield from self._model_metrics()
        yield _gauge("musiclab_host_cpus", "CPUs of this host.", os.cpu_count() or 1)
        yield _gauge(
            "musiclab_host_load1",
            "Load average of this host over one minute.",
            os.getloadavg()[0],
        )

    def _job_metrics(self, counts: JobCounts) -> Iterator[Metric]:
        yield _by_label(
            "musiclab_jobs",
            "Jobs in the database, by state.",
            "state",
            {state: counts.by_state.get(state, 0) for state in STATES},
        )
        yield _gauge("musiclab_stored_bytes", "Total size of all jobs' files.", counts.stored_bytes)
        yield _gauge(
            "musiclab_oldest_queued_job_age_seconds",
            "Seconds since the oldest queued job was accepted; 0 if no job is queued.",
            counts.oldest_queued_s,
        )
        zeros = dict.fromkeys(self.model.names, 0)
        yield _by_label(
            "musiclab_jobs_pinned",
            "Queued and running jobs that request a model version by name.",
            "model_version",
            zeros | dict(counts.pinned),
        )

    def _model_metrics(self) -> Iterator[Metric]:
        model = self.model
        yield _gauge(
            "musiclab_model_ready",
            "Whether the default version has a ready TorchServe worker.",
            model.ready,
        )
        yield _by_label(
            "musiclab_model_ready_workers",
            "Ready TorchServe workers of each loaded model version.",
            "model_version",
            {each.version: each.ready for each in model.versions},
        )
        names = ("model_version", "device", "codec", "checkpoint")
        info = GaugeMetricFamily(
            "musiclab_default_model_info",
            "The default model version, if it is ready.",
            labels=names,
        )
        if model.ready:
            values = (model.version, model.device, model.codec, model.checkpoint)
            info.add_metric([value or "" for value in values], 1)
        yield info


async def collect_gauges(
    database: Database, storage: JobStorage, model: ModelStatus, settings: Settings
) -> Gauges:
    """Collects the current values of all gauges."""
    counts: JobCounts | None = None
    disk: DiskUsage | None = None
    with suppress(DatabaseUnavailableError):
        counts = await count_jobs(database)
    with suppress(StorageUnavailableError):
        disk = await storage.disk_usage()
    return Gauges(settings, model, counts, disk)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _by_label(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
