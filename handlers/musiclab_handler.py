"""TorchServe handler: parses requests, runs the pipeline, returns responses and emits metrics.

This is the only module of `handlers` that depends on TorchServe. It must define exactly one class,
because TorchServe uses the class it finds. Custom metrics reach Prometheus only if the server's
metrics.yaml declares them; undeclared metrics are ignored.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes

from handlers.archive import load_archive
from handlers.audio import write_wav
from handlers.batch import build_batch
from handlers.codec.memory import keep_activations_in_heap
from handlers.device import choose_device, describe
from handlers.errors import CheckpointError
from handlers.logs import job_id_in, log_json
from handlers.pipeline import SEGMENT_SAMPLES, Pipeline
from handlers.precision import choose_precision

log = logging.getLogger(__name__)

WORKER_LABELS = ["model_version", "device"]
INFO_LABELS = [*WORKER_LABELS, "codec", "checkpoint"]
# No version label: the last value of an unloaded version would be exported forever.
GPU_LABELS = ["device"]
# Metric name: (type, unit, labels). Label values must not contain ':' or ','.
METRICS = {
    "musiclab_model_info": (MetricTypes.GAUGE, "count", INFO_LABELS),
    "musiclab_batch_size": (MetricTypes.HISTOGRAM, "count", WORKER_LABELS),
    "musiclab_request_decode_seconds": (MetricTypes.HISTOGRAM, "s", WORKER_LABELS),
    "musiclab_encode_seconds": (MetricTypes.HISTOGRAM, "s", WORKER_LABELS),
    "musiclab_cascade_seconds": (MetricTypes.HISTOGRAM, "s", WORKER_LABELS),
    "musiclab_decode_seconds": (MetricTypes.HISTOGRAM, "s", WORKER_LABELS),
    "musiclab_gpu_memory_size_bytes": (MetricTypes.GAUGE, "B", GPU_LABELS),
    "musiclab_gpu_memory_free_bytes": (MetricTypes.GAUGE, "B", GPU_LABELS),
}


class MusicLabHandler:
    """TorchServe handler: takes two tracks per request and returns sixteen seconds of new music."""

    pipeline: Pipeline
    device: torch.device
    labels: list[str]

    def initialize(self, context: Any) -> None:
        """Load the archive onto the worker's device and run one warm-up batch.

        TorchServe reports the worker as READY afterwards, so the first request is not slow. On a
        GPU the warm-up is a full batch, which allocates memory and compiles code for that size. On
        a CPU the codec processes a batch item by item, so a single job is enough: the first full
        batch then takes only a tenth of a second longer.

        Raises:
            ModelCodeError: the device, the precision or the archive is invalid.
        """
        log_json(context.manifest["model"]["modelVersion"])
        keep_activations_in_heap()
        properties = context.system_properties
        config = context.model_yaml_config
        device = choose_device(config.get("deviceType"), properties.get("gpu_id"))
        precision = choose_precision(config.get("precision"), device)
        self.pipeline, manifest = load_archive(Path(properties["model_dir"]), device, precision)
        self.device = device
        self.labels = [manifest["version"], str(device).replace(":", "")]
        jobs = 1 if device.type == "cpu" else config.get("batchSize", 1)
        silence = torch.zeros(jobs, 1, SEGMENT_SAMPLES)
        if not self.pipeline.generate(silence, silence).waveforms.isfinite().all():
            raise CheckpointError(
                "the model outputs NaN or infinity for silence; it cannot be used"
            )
        codec = manifest["codec"]["kind"]
        checkpoint = "starter" if manifest["checkpoint"]["starter"] else "trained"
        self._observe(context, "musiclab_model_info", 1, [*self.labels, codec, checkpoint])
        self._observe_gpu(context)
        log.info(
            "musiclab %s is ready on %s in %s: %s codec, %s checkpoint",
            manifest["version"],
            describe(device),
            precision,
            codec,
            checkpoint,
        )

    def handle(self, data: list[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Process a batch; return a WAV file for each valid request and a JSON error for the rest.

        Args:
            data: form fields of each request.
            context: TorchServe's context; receives the status and content type of each response.
        """
        job_ids = [job_id_in(context.get_all_request_header(index)) for index in range(len(data))]
        seconds: dict[str, float] = {}
        try:
            responses = self._compute_responses(data, context, seconds)
        except Exception:
            fields = {"job_ids": job_ids, **_batch_fields(data, seconds)}
            log.exception("batch failed", extra={"fields": fields})
            raise
        for index, job_id in enumerate(job_ids):
            status, _ = context.get_response_status(index)
            fields = {"job_id": job_id, "status": status, **_batch_fields(data, seconds)}
            if status != HTTPStatus.OK:
                fields |= json.loads(responses[index])
            level = logging.INFO if status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.ERROR
            log.log(level, "request answered", extra={"fields": fields})
        return responses

    def _compute_responses(
        self, data: list[Mapping[str, Any]], context: Any, seconds: dict[str, float]
    ) -> list[bytes]:
        """Compute the responses; record the wall time of each completed stage in `seconds`."""
        started = time.perf_counter()
        responses = [b""] * len(data)
        batch = build_batch(data)
        for index, error in batch.errors.items():
            responses[index] = _error_response(
                context, index, HTTPStatus.BAD_REQUEST, error.code, error.detail
            )
        seconds["request_decode"] = time.perf_counter() - started
        self._observe(context, "musiclab_batch_size", len(data))
        if batch.tracks is not None:
            generated = self.pipeline.generate(batch.tracks[0], batch.tracks[1])
            seconds |= generated.seconds
            self._observe_gpu(context)
            for index, waveform in zip(batch.indices, generated.waveforms.numpy(), strict=True):
                responses[index] = _wav_response(context, index, waveform)
        for stage, wall in seconds.items():
            self._observe(context, f"musiclab_{stage}_seconds", wall)
        return responses

    def _observe_gpu(self, context: Any) -> None:
        """Emit GPU memory metrics; TorchServe's own need a package that is not installed."""
        if self.device.type == "cuda":
            free, size = torch.cuda.mem_get_info(self.device)
            labels = self.labels[1:]
            self._observe(context, "musiclab_gpu_memory_size_bytes", size, labels)
            self._observe(context, "musiclab_gpu_memory_free_bytes", free, labels)

    def _observe(
        self, context: Any, name: str, value: float, label_values: Sequence[str] | None = None
    ) -> None:
        """Emit a metric; the label values default to the version and the device."""
        metric_type, unit, labels = METRICS[name]
        try:
            metric = context.metrics.get_metric(name, metric_type)
        except MetricsCacheKeyError:  # a server whose metrics.yaml is older than this archive
            metric = context.metrics.add_metric_to_cache(name, unit, labels, metric_type)
        metric.add_or_update(value, list(label_values or self.labels))


def _batch_fields(data: Sequence[Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the log fields of a batch, which are logged with each of its requests."""
    rounded = {stage: round(wall, 4) for stage, wall in seconds.items()}
    return {"batch_size": len(data), "seconds": rounded}


def _wav_response(context: Any, index: int, waveform: NDArray[np.float32]) -> bytes:
    if not np.isfinite(waveform).all():
        return _error_response(
            context,
            index,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "not_finite_output",
            "the output for these tracks contains NaN or infinity; the checkpoint is faulty",
        )
    context.set_response_content_type(index, "audio/wav")
    return write_wav(waveform)


def _error_response(context: Any, index: int, status: HTTPStatus, code: str, detail: str) -> bytes:
    context.set_response_status(status.value, status.phrase, index)
    context.set_response_content_type(index, "application/json")
    return json.dumps({"detail": detail, "code": code}).encode()
