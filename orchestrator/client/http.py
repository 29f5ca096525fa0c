"""Sends requests to the API, and retries after temporary errors."""

import io
from typing import Any

import requests
from requests.exceptions import ChunkedEncodingError, SSLError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_exception,
    wait_random_exponential,
)
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from orchestrator.errors import ApiError, ApiUnavailableError

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0

# The service is starting or busy, or the rate limit is exceeded. Not 507: a disk stays full.
RETRIED_STATUSES = (429, 502, 503, 504)
CONNECTION_ERRORS = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


def retrying(patience_s: float) -> Retrying:
    """Creates a retrier that repeats calls for `patience_s` seconds on ApiUnavailableError.

    urllib3's Retry does not fit: it limits the number of retries, whereas restarts and rate limits
    are a matter of time, and it does not retry when a response body is incomplete.
    """
    return Retrying(
        retry=retry_if_exception_type(ApiUnavailableError),
        # Random waits spread out clients that were rejected at the same time.
        wait=wait_exception(_retry_after_s) + wait_random_exponential(multiplier=0.25, max=8),
        stop=stop_before_delay(patience_s),
        reraise=True,
    )


def send(
    url: str,
    api_key: str | None,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    stream: bool = False,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> requests.Response:
    """Sends one request.

    Raises:
        ApiUnavailableError: the API is unreachable or busy; the request may be retried.
        ApiError: any other error.
    """
    key = {} if api_key is None else {"X-API-Key": api_key}
    try:
        response = requests.request(
            method,
            url.rstrip("/") + path,
            # As a file, so that the timeout applies to each chunk: on a slow connection, the whole
            # body may take minutes.
            data=None if body is None else io.BytesIO(body),
            headers=key | (headers or {}),
            timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
            stream=stream,
        )
        if response.ok:
            return response
        raise _response_error(response)
    except SSLError as error:  # an invalid certificate stays invalid
        raise ApiError(f"the request to {url} failed: {error}") from error
    except requests.ConnectionError as error:
        raise ApiUnavailableError(
            f"cannot reach MusicLab at {url}; start it with `musiclab up`"
        ) from error
    except CONNECTION_ERRORS as error:
        raise ApiUnavailableError(f"the request to {url} failed: {error}") from error
    except requests.RequestException as error:
        raise ApiError(f"the request to {url} failed: {error}") from error


def _response_error(response: requests.Response) -> ApiError:
    status = response.status_code
    try:
        document = response.json()
        detail, code = str(document["detail"]), str(document["code"])
    except (ValueError, KeyError, TypeError):
        detail, code = f"{response.url} returned status {status}", None
    if status not in RETRIED_STATUSES:
        return ApiError(detail, status, code)
    try:
        wait = Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except InvalidHeader:
        wait = 0.0
    return ApiUnavailableError(detail, status, code, retry_after_s=wait)


def _retry_after_s(error: BaseException) -> float:
    return error.retry_after_s if isinstance(error, ApiUnavailableError) else 0.0


def json_object(response: requests.Response) -> dict[str, Any]:
    """Returns the JSON object in a response.

    Raises:
        ApiError: the body is not a JSON object.
    """
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ApiError(f"{response.url} is not a MusicLab API: its response is not a JSON object")
    return document
