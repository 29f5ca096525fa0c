"""The aiohttp applications of the API and of `musiclab worker`."""

from collections.abc import AsyncIterator, Sequence

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from orchestrator.api.app_keys import (
    DATABASE,
    EVENT_FEED,
    JOB_TABLE,
    LEASES,
    METRICS,
    SCRATCH,
    SETTINGS,
    STORAGE,
    SUBMISSIONS,
    WATCHER,
    WORKER,
)
from orchestrator.api.middleware.access_log import log_requests
from orchestrator.api.middleware.content_encoding import reject_content_encoding
from orchestrator.api.middleware.cors import allow_origin, answer_preflights
from orchestrator.api.middleware.errors import json_errors
from orchestrator.api.middleware.http_metrics import count_requests
from orchestrator.api.routes import check, frontend, generate, health, in_flight, jobs, models, root
from orchestrator.concurrency import background_tasks
from orchestrator.database.engine import Database
from orchestrator.errors import StorageUnavailableError
from orchestrator.jobs.admission import Limits
from orchestrator.jobs.eta import EtaEstimator
from orchestrator.jobs.event_feed import EventFeed
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.submission import Submissions
from orchestrator.jobs.submission_table import SubmissionTable
from orchestrator.jobs.table import JobTable
from orchestrator.observability.metrics import Metrics
from orchestrator.settings import Settings
from orchestrator.storage import open_storage
from orchestrator.storage.scratch import exclusive_folder
from orchestrator.worker.fleet import FleetWatcher
from orchestrator.worker.runtime import running_worker

log = structlog.get_logger()


def create_app(settings: Settings, *, runs_jobs: bool = True) -> web.Application:
    """Creates the API; with `runs_jobs`, a worker starts and stops with it."""
    app = _application(settings, [answer_preflights])
    app.on_response_prepare.append(allow_origin)
    app.cleanup_ctx.append(_with_worker if runs_jobs else _with_fleet)
    app.cleanup_ctx.append(_with_submissions)
    app.cleanup_ctx.append(_with_event_feed)
    app.on_shutdown.append(_close_event_feed)
    for module in (generate, check, jobs, models, health, in_flight, root, frontend):
        app.add_routes(module.routes)
    return app


def create_worker_app(settings: Settings) -> web.Application:
    """Creates a worker with the monitoring routes /health, /ready, /metrics and /in-flight."""
    app = _application(settings)
    app.cleanup_ctx.append(_with_worker)
    for module in (health, in_flight):
        app.add_routes(module.routes)
    return app


def _application(settings: Settings, middlewares: Sequence[Middleware] = ()) -> web.Application:
    common = [count_requests, log_requests, json_errors, reject_content_encoding]
    app = web.Application(middlewares=[*common, *middlewares])
    app[SETTINGS] = settings
    app[METRICS] = Metrics()
    app.cleanup_ctx.append(_with_storage)
    app.cleanup_ctx.append(_with_database)
    return app


async def _with_storage(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    # A separate directory per process: one that takes over a job must not find files of the other.
    with exclusive_folder(settings.scratch_dir) as scratch:
        app[SCRATCH] = scratch
        app[STORAGE] = open_storage(settings.files_url, settings.cache.resolve(), scratch)
        yield


async def _with_database(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    app[DATABASE] = database = Database(settings.database_url, settings.database_file)
    app[JOB_TABLE] = JobTable(database)
    app[LEASES] = Leases(database)
    await database.open()
    try:
        try:
            await app[STORAGE].claim(database.id)
        except StorageUnavailableError as error:
            # It may become available later. Cleanup claims it before it deletes expired jobs or
            # quarantines files.
            log.error("file storage is unavailable", reason=str(error))
        await app[LEASES].expire_previous()
        async with background_tasks(app[LEASES].run_renewals()):
            yield
    finally:
        await database.close()


async def _with_worker(app: web.Application) -> AsyncIterator[None]:
    worker = running_worker(app[SETTINGS], app[DATABASE], app[STORAGE], app[LEASES], app[METRICS])
    async with worker as (app[WATCHER], app[WORKER]):
        yield


async def _with_fleet(app: web.Application) -> AsyncIterator[None]:
    app[WATCHER] = watcher = FleetWatcher(app[DATABASE])
    async with background_tasks(watcher.run()):
        yield


async def _with_submissions(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    limits = Limits(settings.rate_limit, settings.max_queued, settings.max_stored_bytes)
    app[SUBMISSIONS] = Submissions(
        app[DATABASE],
        app[STORAGE],
        SubmissionTable(app[DATABASE], app[LEASES].owner, limits),
        app[LEASES],
        app[METRICS],
        lambda: app[WATCHER].status,
        reuse_results=settings.reuse_results,
        min_free_percent=settings.min_free_disk_percent,
    )
    yield


async def _with_event_feed(app: web.Application) -> AsyncIterator[None]:
    retention_s = app[SETTINGS].keep_hours * 3600
    estimator = EtaEstimator(app[DATABASE], lambda: app[WATCHER].status.ready)
    app[EVENT_FEED] = EventFeed(app[DATABASE], estimator, retention_s)
    async with background_tasks(app[EVENT_FEED].run()):
        yield


async def _close_event_feed(app: web.Application) -> None:
    """Ends all event streams, which would otherwise delay the shutdown."""
    app[EVENT_FEED].close()
