"""TorchServe glue: requests to jobs, waveforms to answers, one error per item, metrics.

Everything that knows TorchServe inside a worker is in this module, which may define one class only
(TorchServe takes the class it finds). Custom metrics reach Prometheus only when the server's
metrics.yaml declares them; a server that does not know one ignores it.
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
from handlers.batch import form_batch
from handlers.codec.memory import keep_activations_in_heap
from handlers.device import choose_device, describe
from handlers.errors import CheckpointError
from handlers.logs import job_id_in, log_json
from handlers.pipeline import SEGMENT_SAMPLES, Pipeline
from handlers.precision import choose_precision

log = logging.getLogger(__name__)

WORKER_LABELS = ["model_version", "device"]
INFO_LABELS = [*WORKER_LABELS, "codec", "checkpoint"]
# Without the version: the last value of one that is no longer served would stay for ever.
GPU_LABELS = ["device"]
# Metric name: (type, unit, labels). A label's value may hold neither ':' nor ','.
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
    """One worker: two tracks a request in, sixteen seconds of new music out."""

    pipeline: Pipeline
    device: torch.device
    labels: list[str]

    def initialize(self, context: Any) -> None:
        """Load the archive onto the worker's device and generate once, so that READY means ready.

        A GPU generates a full batch: what that needs (memory, compiled code) is there from then on.
        On a CPU, where the codec takes a batch one by one, a lone job brings all but a tenth of a
        second, which the first full batch takes longer.

        Raises:
            ModelCodeError: the device or the archive is not what it should be.
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
            raise CheckpointError("the model makes NaN or infinity of silence; it cannot serve")
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
        """Answer a batch: WAV bytes for each sound request, a JSON error for each other.

        Args:
            data: the form fields of each request.
            context: TorchServe's; takes each answer's status and content type.
        """
        job_ids = [job_id_in(context.get_all_request_header(index)) for index in range(len(data))]
        seconds: dict[str, float] = {}
        try:
            answers = self._answer_all(data, context, seconds)
        except Exception:
            fields = {"job_ids": job_ids, **_of_batch(data, seconds)}
            log.exception("the batch failed", extra={"fields": fields})
            raise
        for index, job_id in enumerate(job_ids):
            status, _ = context.get_response_status(index)
            fields = {"job_id": job_id, "status": status, **_of_batch(data, seconds)}
            if status != HTTPStatus.OK:
                fields |= json.loads(answers[index])
            level = logging.INFO if status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.ERROR
            log.log(level, "request answered", extra={"fields": fields})
        return answers

    def _answer_all(
        self, data: list[Mapping[str, Any]], context: Any, seconds: dict[str, float]
    ) -> list[bytes]:
        """The answers; `seconds` gets the wall time of each stage as soon as it is known."""
        started = time.perf_counter()
        answers = [b""] * len(data)
        batch = form_batch(data)
        for index, error in batch.refused.items():
            answers[index] = _refuse(
                context, index, HTTPStatus.BAD_REQUEST, error.code, error.detail
            )
        seconds["request_decode"] = time.perf_counter() - started
        self._observe(context, "musiclab_batch_size", len(data))
        if batch.tracks is not None:
            generated = self.pipeline.generate(batch.tracks[0], batch.tracks[1])
            seconds |= generated.seconds
            self._observe_gpu(context)
            for index, waveform in zip(batch.indices, generated.waveforms.numpy(), strict=True):
                answers[index] = _answer(context, index, waveform)
        for stage, wall in seconds.items():
            self._observe(context, f"musiclab_{stage}_seconds", wall)
        return answers

    def _observe_gpu(self, context: Any) -> None:
        """The memory of the whole GPU; TorchServe's own metrics of it need a package it lacks."""
        if self.device.type == "cuda":
            free, size = torch.cuda.mem_get_info(self.device)
            labels = self.labels[1:]
            self._observe(context, "musiclab_gpu_memory_size_bytes", size, labels)
            self._observe(context, "musiclab_gpu_memory_free_bytes", free, labels)

    def _observe(
        self, context: Any, name: str, value: float, values: Sequence[str] | None = None
    ) -> None:
        """Emit a metric; its labels are the version and the device unless others are given."""
        metric_type, unit, labels = METRICS[name]
        try:
            metric = context.metrics.get_metric(name, metric_type)
        except MetricsCacheKeyError:  # a server whose metrics.yaml is older than this archive
            metric = context.metrics.add_metric_to_cache(name, unit, labels, metric_type)
        metric.add_or_update(value, list(values or self.labels))


def _of_batch(data: Sequence[Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """What the log says of a batch with every request."""
    rounded = {stage: round(wall, 4) for stage, wall in seconds.items()}
    return {"batch_size": len(data), "seconds": rounded}


def _answer(context: Any, index: int, waveform: NDArray[np.float32]) -> bytes:
    if not np.isfinite(waveform).all():
        return _refuse(
            context,
            index,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "not_finite_output",
            "the model made NaN or infinity of these tracks; its checkpoint is at fault",
        )
    context.set_response_content_type(index, "audio/wav")
    return write_wav(waveform)


def _refuse(context: Any, index: int, status: HTTPStatus, code: str, detail: str) -> bytes:
    context.set_response_status(status.value, status.phrase, index)
    context.set_response_content_type(index, "application/json")
    return json.dumps({"detail": detail, "code": code}).encode()
