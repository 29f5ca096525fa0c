"""The aiohttp application: its parts, and what all its answers have in common."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import aiohttp
import structlog
from aiohttp import web

from orchestrator.errors import RequestError
from orchestrator.files import Cache
from orchestrator.jobs import JobTable
from orchestrator.keys import CACHE, SETTINGS, TABLE, WATCH, WORKER
from orchestrator.routes import generate, jobs, service
from orchestrator.settings import Settings
from orchestrator.torchserve import InferenceClient, Keys, ModelWatch
from orchestrator.worker import Worker

CORS_METHODS = "GET, POST, DELETE"
PREFLIGHT_VALID_S = "600"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


def create_app(settings: Settings) -> web.Application:
    """The API, with the worker that starts and stops with it."""
    app = web.Application(middlewares=[answer_preflights, json_errors])
    app[SETTINGS] = settings
    app.cleanup_ctx.append(_run_parts)
    app.on_response_prepare.append(_allow_origin)
    for module in (generate, jobs, service):
        app.add_routes(module.routes)
    return app


async def _run_parts(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    app[CACHE] = Cache(settings.cache.resolve())
    app[TABLE] = JobTable(settings.run_dir.resolve() / "jobs.sqlite")
    await app[TABLE].open()
    async with aiohttp.ClientSession() as session:
        keys = Keys(settings.key_file)
        app[WATCH] = ModelWatch(session, settings, keys)
        inference = InferenceClient(session, f"http://127.0.0.1:{settings.inference_port}", keys)
        app[WORKER] = Worker(app[TABLE], app[CACHE], inference, app[WATCH], settings.concurrency)
        tasks = [asyncio.create_task(part.run()) for part in (app[WATCH], app[WORKER])]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await app[TABLE].close()


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as `{"detail", "code"}`, never an HTML page or a traceback."""
    try:
        return await handler(request)
    except RequestError as error:
        return _error(error.status, error.code, str(error))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = _error(
            error.status,
            "method_not_allowed",
            f"{request.method} is not allowed at {request.path}; allowed are {allowed}",
        )
        answer.headers["Allow"] = allowed
        return answer
    except web.HTTPNotFound:
        return _error(404, "not_found", f"There is nothing at {request.path}")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        name = HTTPStatus(error.status).phrase.lower().replace(" ", "_").replace("-", "_")
        return _error(error.status, name, error.text or error.reason)
    except Exception:
        log.exception("request failed unexpectedly", method=request.method, path=request.path)
        return _error(500, "internal_error", "Something went wrong here; it was logged")


def _error(status: int, code: str, detail: str) -> web.Response:
    return web.json_response({"detail": detail, "code": code}, status=status)


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
    response.headers["Vary"] = "Origin"
    if _is_allowed(request):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = "Location, Content-Disposition"


def _is_allowed(request: web.Request) -> bool:
    origins = request.app[SETTINGS].cors_origins.split(",")
    return request.headers.get("Origin") in [origin.strip() for origin in origins]
