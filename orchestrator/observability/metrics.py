"""What this process counts and times for Prometheus, as it happens."""

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

# Prometheus itself knows when a counter began.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

STAGE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ATTEMPTS = (1, 2, 3, 4, 5)
# A counter has to be there before its first increase, or Prometheus does not see that one.
FAILED_ATTEMPT_REASONS = ("model_away", "model_failed", "conversion", "files", "unexpected")
REFUSALS_OF_OURS = (
    "queue_full",
    "storage_full",
    "not_checked",
    "database_unavailable",
    "files_unavailable",
    "internal_error",
)
# As `model_version` of a job that ended before it got to the model.
NO_VERSION = "none"


class Metrics:
    """One process' metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.build = Info("musiclab_build", "What runs here.", registry=registry)
        self.build.info({"version": version("musiclab"), "python": platform.python_version()})
        self._count_requests(registry)
        self._count_submissions(registry)
        self._count_work(registry)

    def _count_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "musiclab_http_requests",
            "HTTP requests answered, by method, template of the route, and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "musiclab_http_request_seconds",
            "Seconds until an HTTP request was answered, by method and template of the route.",
            ["method", "route"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "musiclab_http_requests_in_flight",
            "HTTP requests that are being answered, event streams included.",
            registry=registry,
        )
        self.refused = Counter(
            "musiclab_refused_requests",
            "Requests answered with an error, by its code.",
            ["code"],
            registry=registry,
        )
        for code in REFUSALS_OF_OURS:
            self.refused.labels(code)

    def _count_submissions(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter(
            "musiclab_jobs_accepted", "Jobs this process has accepted.", registry=registry
        )
        self.reused = Counter(
            "musiclab_results_reused",
            "Jobs that were answered with the result of an earlier one.",
            registry=registry,
        )
        self.uploaded_bytes = Counter(
            "musiclab_uploaded_bytes", "Bytes of tracks received.", registry=registry
        )

    def _count_work(self, registry: CollectorRegistry) -> None:
        self.at_work = Gauge(
            "musiclab_jobs_at_work", "Jobs this process is working on.", registry=registry
        )
        self.inference_in_flight = Gauge(
            "musiclab_inference_requests_in_flight",
            "Requests this process has sent to the model that are not answered yet, by version.",
            ["model_version"],
            registry=registry,
        )
        self.finished = Counter(
            "musiclab_jobs_finished",
            "Jobs this process has brought to an end, by outcome (completed or an error code) "
            "and version of the model.",
            ["outcome", "model_version"],
            registry=registry,
        )
        self.attempts = Histogram(
            "musiclab_job_attempts",
            "Attempts that a finished job took.",
            buckets=ATTEMPTS,
            registry=registry,
        )
        self.failed_attempts = Counter(
            "musiclab_failed_attempts",
            "Attempts at jobs that failed for reasons that may pass, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in FAILED_ATTEMPT_REASONS:
            self.failed_attempts.labels(reason)
        self.stage_seconds = Histogram(
            "musiclab_stage_seconds",
            "Seconds of a job's stages: queued, convert, wait, generate, save.",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=registry,
        )

    def requests_to_model(self) -> dict[str, int]:
        """Requests to the model that are not answered yet, by version; none with 0."""
        return {
            sample.labels["model_version"]: int(sample.value)
            for family in self.inference_in_flight.collect()
            for sample in family.samples
            if sample.value
        }
