"""Requests to the API, and what is repeated."""

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

CONNECT_S = 10.0
ANSWER_S = 60.0

# The service is being started, is busy, or counts our requests. Not 507: a disk stays full.
PASSING = (429, 502, 503, 504)
BROKEN = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


def retrying(patience_s: float) -> Retrying:
    """Repeats what raises ApiUnavailableError.

    Not urllib3's Retry: that counts tries, where restarts and rate limits are matters of time,
    and knows nothing of a body that breaks off after the headers came.
    """
    return Retrying(
        retry=retry_if_exception_type(ApiUnavailableError),
        # Chance spreads out those who were all sent away at the same time.
        wait=wait_exception(_asked_wait) + wait_random_exponential(multiplier=0.25, max=8),
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
    answer_s: float = ANSWER_S,
) -> requests.Response:
    key = {} if api_key is None else {"X-API-Key": api_key}
    try:
        answer = requests.request(
            method,
            url.rstrip("/") + path,
            # As a file, of which each piece has the timeout for itself: a slow line may take
            # minutes for all of it.
            data=None if body is None else io.BytesIO(body),
            headers=key | (headers or {}),
            timeout=(CONNECT_S, answer_s),
            stream=stream,
        )
        if answer.ok:
            return answer
        raise _response_error(answer)
    except SSLError as error:  # a certificate stays wrong
        raise ApiError(f"the request to {url} failed: {error}") from error
    except requests.ConnectionError as error:
        raise ApiUnavailableError(
            f"MusicLab does not answer at {url}; start it with `musiclab up`"
        ) from error
    except BROKEN as error:
        raise ApiUnavailableError(f"the request to {url} failed: {error}") from error
    except requests.RequestException as error:
        raise ApiError(f"the request to {url} failed: {error}") from error


def _response_error(answer: requests.Response) -> ApiError:
    status = answer.status_code
    try:
        document = answer.json()
        detail, code = str(document["detail"]), str(document["code"])
    except (ValueError, KeyError, TypeError):
        detail, code = f"{answer.url} answered {status}", None
    if status not in PASSING:
        return ApiError(detail, status, code)
    try:
        wait = Retry().parse_retry_after(answer.headers.get("Retry-After", "0"))
    except InvalidHeader:
        wait = 0.0
    return ApiUnavailableError(detail, status, code, retry_after_s=wait)


def _asked_wait(error: BaseException) -> float:
    return error.retry_after_s if isinstance(error, ApiUnavailableError) else 0.0


def json_object(answer: requests.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ApiError(f"{answer.url} is not MusicLab's: it answers with no JSON object")
    return document
