"""Typed keys of the objects stored in the aiohttp application."""

from pathlib import Path
from typing import Protocol

from aiohttp import web

from orchestrator.database.engine import Database
from orchestrator.jobs.event_feed import EventFeed
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.submission import Submissions
from orchestrator.jobs.table import JobTable
from orchestrator.observability.metrics import Metrics
from orchestrator.serving.status import ModelStatus
from orchestrator.settings import Settings
from orchestrator.storage.base import JobStorage
from orchestrator.worker.worker import Worker


class Watcher(Protocol):
    """Provides the status of the local model server, or the merged status of all of them."""

    status: ModelStatus


SETTINGS = web.AppKey("settings", Settings)
METRICS = web.AppKey("metrics", Metrics)
DATABASE = web.AppKey("database", Database)
JOB_TABLE = web.AppKey("job_table", JobTable)
LEASES = web.AppKey("leases", Leases)
SUBMISSIONS = web.AppKey("submissions", Submissions)
EVENT_FEED = web.AppKey("event_feed", EventFeed)
STORAGE = web.AppKey("storage", JobStorage)
# Scratch directory exclusive to this process; emptied before another process reuses it.
SCRATCH = web.AppKey("scratch", Path)
WATCHER = web.AppKey("watcher", Watcher)
# Present only if this process runs jobs.
WORKER = web.AppKey("worker", Worker)
