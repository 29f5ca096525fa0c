"""Configures logging: readable lines on a terminal, otherwise one JSON object per line."""

import logging
import sys

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from orchestrator.settings import Settings

LEADING_FIELDS = ("timestamp", "level", "logger", "job_id", "model_version", "event")


def logs_json(settings: Settings) -> bool:
    """Returns whether this process logs in JSON."""
    if settings.log_format == "auto":
        return not sys.stderr.isatty()
    return settings.log_format == "json"


def configure_logging(settings: Settings) -> None:
    """Sends the logs of this process to standard error, including logs and warnings of libraries.

    Values bound by `structlog.contextvars` are added to every line.
    """
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    renderers = _json() if logs_json(settings) else _console()
    formatter = ProcessorFormatter(
        foreign_pre_chain=common,
        processors=[ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("orchestrator").setLevel(settings.log_level.upper())
    logging.captureWarnings(True)


def _json() -> list[Processor]:
    # Local variables may contain keys and tracks, which must not be logged.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(frames),
        _order_fields,
        structlog.processors.JSONRenderer(),
    ]


def _console() -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _order_fields(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """Moves LEADING_FIELDS, which are searched most often, to the start of the line."""
    return {name: line[name] for name in LEADING_FIELDS if name in line} | dict(line)
