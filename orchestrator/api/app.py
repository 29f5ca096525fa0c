"""The aiohttp application: its parts, and what all its answers have in common."""

import asyncio
import errno
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus

import aiohttp
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from orchestrator.api.app_keys import (
    ADMISSION,
    DATABASE,
    EVENT_FEED,
    JOB_TABLE,
    LEASES,
    METRICS,
    SCRATCH,
    SETTINGS,
    STORAGE,
    WATCHER,
    WORKER,
)
from orchestrator.api.middleware.access_log import log_requests
from orchestrator.api.middleware.content_encoding import refuse_content_encoding
from orchestrator.api.middleware.http_metrics import count_requests
from orchestrator.api.routes import check, frontend, generate, health, jobs, models, root
from orchestrator.concurrency import background_tasks
from orchestrator.database.engine import Database
from orchestrator.errors import DatabaseUnavailableError, RequestError, StorageUnavailableError
from orchestrator.jobs.admission import Admission, Limits
from orchestrator.jobs.cleanup import Cleanup
from orchestrator.jobs.eta import EtaEstimator
from orchestrator.jobs.event_feed import EventFeed
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.table import JobTable
from orchestrator.observability.metrics import Metrics
from orchestrator.serving.inference import InferenceClient
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.watcher import ModelWatcher
from orchestrator.settings import Settings
from orchestrator.storage import open_storage
from orchestrator.storage.scratch import exclusive_folder
from orchestrator.worker.attempt import Dependencies
from orchestrator.worker.fleet import Fleet, FleetWatcher, Heartbeat
from orchestrator.worker.worker import Worker

CORS_METHODS = "GET, POST, DELETE"
PREFLIGHT_VALID_S = "600"
EXPOSED = "Location, Content-Disposition, Retry-After, Idempotent-Replayed, ETag, Content-Range"
AGAIN = {"Retry-After": "5"}

log = structlog.get_logger()


def create_app(settings: Settings, *, runs_jobs: bool = True) -> web.Application:
    """The API; with a worker that starts and stops with it, unless other processes run the jobs."""
    app = _application(settings, [answer_preflights])
    app.on_response_prepare.append(_allow_origin)
    app.cleanup_ctx.append(_with_worker if runs_jobs else _with_fleet)
    app.cleanup_ctx.append(_with_feed)
    app.on_shutdown.append(_close_feed)
    for module in (generate, check, jobs, models, health, root, frontend):
        app.add_routes(module.routes)
    return app


def create_worker_app(settings: Settings) -> web.Application:
    """A worker, and what its operators ask it."""
    app = _application(settings)
    app.cleanup_ctx.append(_with_worker)
    app.add_routes(health.routes)
    return app


def _application(settings: Settings, middlewares: Sequence[Middleware] = ()) -> web.Application:
    around_all = [count_requests, log_requests, json_errors, refuse_content_encoding]
    app = web.Application(middlewares=[*around_all, *middlewares])
    app[SETTINGS] = settings
    app[METRICS] = Metrics()
    app.cleanup_ctx.append(_with_files)
    app.cleanup_ctx.append(_with_tables)
    return app


async def _with_files(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    # Two processes of one host must not meet in it: one may have taken a job over from the other.
    with exclusive_folder(settings.scratch_dir) as scratch:
        app[SCRATCH] = scratch
        app[STORAGE] = open_storage(settings.files_url, settings.cache.resolve(), scratch)
        yield


async def _with_tables(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    app[DATABASE] = database = Database(settings.database_url, settings.database_file)
    app[JOB_TABLE] = JobTable(database)
    app[LEASES] = Leases(database)
    limits = Limits(settings.rate_limit, settings.max_queued, settings.max_stored_bytes)
    app[ADMISSION] = Admission(database, app[LEASES].owner, limits)
    await database.open()
    try:
        try:
            await app[STORAGE].claim(database.id)
        except StorageUnavailableError as error:
            # They may be back. Until then the sweep, which claims them first, deletes nothing.
            log.error("the store of the files is away", reason=str(error))
        await app[LEASES].resume()
        async with background_tasks(app[LEASES].run_renewals()):
            yield
    finally:
        await database.close()


async def _with_worker(app: web.Application) -> AsyncIterator[None]:
    settings, database = app[SETTINGS], app[DATABASE]
    async with aiohttp.ClientSession() as session:
        tokens = Tokens(settings.key_file, settings.management_url)
        watch = ModelWatcher(session, settings, tokens)
        app[WATCHER] = watch
        sweep = Cleanup(database, app[STORAGE], settings.keep_hours * 3600)
        needs = Dependencies(
            leases=app[LEASES],
            files=app[STORAGE],
            inference=InferenceClient(session, settings.inference_url, tokens, watch),
            watch=watch,
            fleet=Fleet(database),
            metrics=app[METRICS],
        )
        worker = Worker(app[JOB_TABLE], sweep, needs)
        app[WORKER] = worker
        parts = [watch.run(), sweep.run()]
        if database.is_shared:
            parts.append(Heartbeat(database, app[LEASES].owner, watch).run())
        async with background_tasks(*parts):
            working = asyncio.create_task(worker.run())
            yield
            await worker.finish(0)
            await working


async def _with_fleet(app: web.Application) -> AsyncIterator[None]:
    watch = FleetWatcher(app[DATABASE])
    app[WATCHER] = watch
    async with background_tasks(watch.run()):
        yield


async def _with_feed(app: web.Application) -> AsyncIterator[None]:
    kept_s = app[SETTINGS].keep_hours * 3600
    estimates = EtaEstimator(app[DATABASE], lambda: app[WATCHER].status.ready)
    app[EVENT_FEED] = EventFeed(app[DATABASE], estimates, kept_s)
    async with background_tasks(app[EVENT_FEED].run()):
        yield


async def _close_feed(app: web.Application) -> None:
    """End all event streams, which would keep the process from ending."""
    app[EVENT_FEED].close()


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as `{"detail", "code"}`, never an HTML page or a traceback."""
    try:
        return await handler(request)
    except RequestError as error:
        return _error(request, error.status, error.code, str(error), error.headers)
    except DatabaseUnavailableError as error:
        # The reason names hosts and ports, which are nobody's business out there.
        log.error("the database is away", reason=str(error))
        sentence = "The database of the jobs does not answer; try again"
        return _error(request, 503, "database_unavailable", sentence, AGAIN)
    except StorageUnavailableError as error:
        log.error("the store of the files is away", reason=str(error))
        sentence = "The store of the jobs' files does not answer; try again"
        return _error(request, 503, "files_unavailable", sentence, AGAIN)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        sentence = f"{request.method} is not allowed at {request.path}; allowed are {allowed}"
        return _error(request, 405, "method_not_allowed", sentence, {"Allow": allowed})
    except web.HTTPNotFound:
        return _error(request, 404, "not_found", f"There is nothing at {request.path}")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        name = HTTPStatus(error.status).phrase.lower().replace(" ", "_").replace("-", "_")
        return _error(request, error.status, name, error.text or error.reason)
    except ConnectionError:
        raise  # the client has gone; nobody is there to be told
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _unexpected(request)
        return _error(request, 507, "storage_full", "The disk is full; try again later", AGAIN)
    except Exception:
        return _unexpected(request)


def _unexpected(request: web.Request) -> web.Response:
    log.exception("request failed unexpectedly", method=request.method, path=request.path)
    return _error(request, 500, "internal_error", "Something went wrong here; it was logged")


def _error(
    request: web.Request,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    request.app[METRICS].refused.labels(code).inc()
    return web.json_response({"detail": detail, "code": code}, status=status, headers=headers)


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a browser, before it sends a request from another origin, what is allowed."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    answer = web.Response(status=204)
    if _is_allowed(request):
        answer.headers["Access-Control-Allow-Methods"] = CORS_METHODS
        answer.headers["Access-Control-Max-Age"] = PREFLIGHT_VALID_S
        asked = request.headers.get("Access-Control-Request-Headers")
        if asked is not None:
            answer.headers["Access-Control-Allow-Headers"] = asked
    return answer


async def _allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer, errors too: a page may read it only if its origin is named.

    aiohttp-cors knows the answers of routes alone, not those of 404, 405 and 413.
    """
    varies = [response.headers[hdrs.VARY]] if hdrs.VARY in response.headers else []
    response.headers[hdrs.VARY] = ", ".join([*varies, hdrs.ORIGIN])
    if _is_allowed(request):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = EXPOSED


def _is_allowed(request: web.Request) -> bool:
    return request.headers.get("Origin") in request.app[SETTINGS].cors_origin_list
