"""Prometheus metrics that this process updates as events occur."""

import platform
from importlib.metadata import version

import prometheus_client
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

# Prometheus does not need the creation times of counters.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

STAGE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ATTEMPTS = (1, 2, 3, 4, 5)
# These series start at 0; otherwise Prometheus would miss the first increase of each.
FAILED_ATTEMPT_REASONS = ("model_away", "model_failed", "conversion", "files", "unexpected")
SERVER_SIDE_ERROR_CODES = (
    "queue_full",
    "storage_full",
    "not_checked",
    "database_unavailable",
    "files_unavailable",
    "internal_error",
)
# Label `model_version` of jobs that ended before an inference request.
NO_VERSION = "none"


class Metrics:
    """The metrics of one process, in a separate registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.build = Info("musiclab_build", "Versions of MusicLab and Python.", registry=registry)
        self.build.info({"version": version("musiclab"), "python": platform.python_version()})
        self._create_http_metrics(registry)
        self._create_submission_metrics(registry)
        self._create_worker_metrics(registry)

    def _create_http_metrics(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "musiclab_http_requests",
            "Completed HTTP requests, by method, route template and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "musiclab_http_request_seconds",
            "Duration of HTTP requests in seconds, by method and route template.",
            ["method", "route"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "musiclab_http_requests_in_flight",
            "HTTP requests in progress, including event streams.",
            registry=registry,
        )
        self.refused = Counter(
            "musiclab_refused_requests",
            "Requests answered with an error, by error code.",
            ["code"],
            registry=registry,
        )
        for code in SERVER_SIDE_ERROR_CODES:
            self.refused.labels(code)

    def _create_submission_metrics(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter(
            "musiclab_jobs_accepted", "Jobs accepted by this process.", registry=registry
        )
        self.reused = Counter(
            "musiclab_results_reused",
            "Jobs completed with the result of an earlier job.",
            registry=registry,
        )
        self.uploaded_bytes = Counter(
            "musiclab_uploaded_bytes", "Bytes of uploaded tracks.", registry=registry
        )

    def _create_worker_metrics(self, registry: CollectorRegistry) -> None:
        self.running_jobs = Gauge(
            "musiclab_jobs_at_work", "Jobs that this process is running.", registry=registry
        )
        self.inference_in_flight = Gauge(
            "musiclab_inference_requests_in_flight",
            "Inference requests of this process in progress, by model version.",
            ["model_version"],
            registry=registry,
        )
        self.finished = Counter(
            "musiclab_jobs_finished",
            "Jobs finished by this process, by outcome (completed or an error code) and model "
            "version.",
            ["outcome", "model_version"],
            registry=registry,
        )
        self.attempts = Histogram(
            "musiclab_job_attempts",
            "Attempts per finished job.",
            buckets=ATTEMPTS,
            registry=registry,
        )
        self.failed_attempts = Counter(
            "musiclab_failed_attempts",
            "Attempts that failed for temporary reasons, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in FAILED_ATTEMPT_REASONS:
            self.failed_attempts.labels(reason)
        self.stage_seconds = Histogram(
            "musiclab_stage_seconds",
            "Duration of job stages in seconds: queued, convert, wait, generate, save.",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=registry,
        )

    def requests_to_model(self) -> dict[str, int]:
        """Returns the number of inference requests in progress by version, omitting zeros."""
        return {
            sample.labels["model_version"]: int(sample.value)
            for family in self.inference_in_flight.collect()
            for sample in family.samples
            if sample.value
        }
