"""The format of the log lines of TorchServe workers."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.logs import JsonFormatter, job_id_in

JOB = "b1946ac92492d2347c6235b4d2611184"


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonFormatter("v1"))
    logger = logging.Logger("handlers.somewhere")
    logger.addHandler(handler)
    yield logger, output
    handler.close()


def test_a_line_is_json_with_the_version_and_its_fields(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, output = log
    logger.info("it is %s\n", "so", extra={"fields": {"job_id": JOB, "batch_size": 2}})
    (text,) = output.getvalue().splitlines()
    assert text.startswith('{"timestamp": "'), "log4j2.xml recognizes our lines by this prefix"
    line = json.loads(text)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "handlers.somewhere",
        "model_version": "v1",
        "event": "it is so\n",
        "job_id": JOB,
        "batch_size": 2,
    }


def test_an_exception_is_logged_with_its_causes(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, output = log
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("then\nthat") from error
    except ValueError:
        logger.exception("the batch failed")
    (text,) = output.getvalue().splitlines()
    chain = json.loads(text)["exception"]
    assert [error["exc_type"] for error in chain] == ["ValueError", "KeyError"]
    assert chain[0]["exc_value"] == "then\nthat"
    assert chain[0]["frames"][-1]["name"] == "test_an_exception_is_logged_with_its_causes"


def test_metric_lines_keep_the_format_that_torchserve_reads(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, output = log
    logger.info("[METRICS]%s", "PredictionTime.ms:12|#ModelName:musiclab")
    assert output.getvalue() == "[METRICS]PredictionTime.ms:12|#ModelName:musiclab\n"


@pytest.mark.parametrize(
    ("headers", "job_id"),
    [
        ({"X-Job-Id": JOB}, JOB),
        ({"x-job-id": JOB}, JOB),
        ({}, None),
        ({"X-Job-Id": ""}, None),
        ({"X-Job-Id": "a" * 64}, "a" * 64),
        ({"X-Job-Id": "a" * 65}, None),
        ({"X-Job-Id": "two\nlines"}, None),
        ({"X-Job-Id": {"content-type": "text/plain"}}, None),  # a form field with that name
    ],
)
def test_the_job_id_is_read_from_a_valid_header(
    headers: dict[str, Any], job_id: str | None
) -> None:
    assert job_id_in(headers) == job_id
