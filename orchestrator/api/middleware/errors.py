"""Converts every error to a JSON response; HTTP_ERRORS maps error classes to responses."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from orchestrator.api.app_keys import METRICS
from orchestrator.api.errors import RequestError
from orchestrator.errors import (
    DatabaseUnavailableError,
    IdempotencyKeyReusedError,
    InputError,
    MusicLabError,
    NotCheckedError,
    QueueFullError,
    RateLimitError,
    StorageFullError,
    StorageUnavailableError,
    SubmissionError,
    TrackError,
    UploadExpiredError,
)

RETRY_AFTER_S = 5

log = structlog.get_logger()


@dataclass(frozen=True)
class HttpError:
    """The response to an error.

    Attributes:
        status: HTTP status of the response.
        code: error code; None to use the code of the error.
        detail: replaces the message of the error, which contains hosts and ports and is logged;
            None to use that message.
        retry_after_s: Retry-After header; None for no header. SubmissionError has its own value.
    """

    status: int
    code: str | None = None
    detail: str | None = None
    retry_after_s: int | None = None


HTTP_ERRORS: dict[type[MusicLabError], HttpError] = {
    InputError: HttpError(400),
    TrackError: HttpError(400),
    UploadExpiredError: HttpError(408, "upload_timeout"),
    IdempotencyKeyReusedError: HttpError(409, "idempotency_key_reused"),
    RateLimitError: HttpError(429, "too_many_requests"),
    QueueFullError: HttpError(503, "queue_full"),
    NotCheckedError: HttpError(503, "not_checked"),
    StorageFullError: HttpError(507, "storage_full"),
    DatabaseUnavailableError: HttpError(
        503,
        "database_unavailable",
        "The job database is unreachable; try again",
        RETRY_AFTER_S,
    ),
    StorageUnavailableError: HttpError(
        503,
        "files_unavailable",
        "The file storage is unreachable or full; try again",
        RETRY_AFTER_S,
    ),
}


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Responds to every error with `{"detail", "code"}`, never with HTML or a traceback."""
    try:
        return await handler(request)
    except RequestError as error:
        return _error(request, error.status, error.code, str(error), error.headers)
    except MusicLabError as error:
        return _domain_error(request, error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{request.method} is not allowed at {request.path}; allowed methods: {allowed}"
        return _error(request, 405, "method_not_allowed", detail, {"Allow": allowed})
    except web.HTTPNotFound:
        return _error(request, 404, "not_found", f"The path {request.path} does not exist")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        name = HTTPStatus(error.status).phrase.lower().replace(" ", "_").replace("-", "_")
        return _error(request, error.status, name, error.text or error.reason)
    except ConnectionError:
        raise  # the client disconnected
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _unexpected(request)
        detail = "The disk is full; try again later"
        return _error(request, 507, "storage_full", detail, _retry_after(RETRY_AFTER_S))
    except Exception:
        return _unexpected(request)


def _domain_error(request: web.Request, error: MusicLabError) -> web.Response:
    kinds = (HTTP_ERRORS.get(kind) for kind in type(error).__mro__)
    known = next((each for each in kinds if each is not None), None)
    if known is None:
        return _unexpected(request)
    code, retry_after_s = known.code, known.retry_after_s
    if isinstance(error, InputError | TrackError):
        code = error.code
    if code is None:
        return _unexpected(request)
    if isinstance(error, SubmissionError):
        retry_after_s = error.retry_after_s
    if known.detail is not None:
        log.error("a dependency is unavailable", code=code, reason=str(error))
    detail = known.detail or str(error)
    return _error(request, known.status, code, detail, _retry_after(retry_after_s))


def _retry_after(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _unexpected(request: web.Request) -> web.Response:
    log.exception("request failed unexpectedly", method=request.method, path=request.path)
    return _error(request, 500, "internal_error", "An internal error occurred; see the server log")


def _error(
    request: web.Request,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    request.app[METRICS].refused.labels(code).inc()
    return web.json_response({"detail": detail, "code": code}, status=status, headers=headers)
