"""TorchServe's authorization keys, and retries of calls whose key has expired."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import requests
import structlog
from requests.auth import AuthBase

from orchestrator.filesystem import lock

TIMEOUT_S = 5.0
# Per call. Without file locks, processes that renew the same key at the same time invalidate each
# other's new keys.
MAX_TRIES = 5
# TorchServe writes the file in place, so a reader may find it empty or truncated.
MAX_READS = 5
READ_RETRY_S = 0.005

log = structlog.get_logger()


@dataclass(frozen=True)
class Tokens:
    """The keys in TorchServe's key_file.json; read at each use, as other processes renew them too.

    `auth` authorizes calls made with the `requests` library, and `middleware` those made with
    aiohttp. Both retry a call with another key if TorchServe rejects its key; the rejected call has
    not reached a worker. Keys are renewed only after a rejection, not by their expiry time: the
    clock of this host may differ from TorchServe's, and a key that a user copied from the file must
    stay valid until it expires.

    Attributes:
        file: key_file.json, which only TorchServe writes.
        management_url: base URL of the API that issues keys, without a trailing slash.
    """

    file: Path
    management_url: str

    def header(self, kind: str) -> dict[str, str]:
        """Returns the authorization header; empty while the file does not exist."""
        keys = self._read()
        return {"Authorization": f"Bearer {keys[kind]['key']}"} if kind in keys else {}

    def header_after_rejection(self, kind: str, rejected: dict[str, str]) -> dict[str, str]:
        """Returns the header to retry with; the rejected one if no other key is available.

        The key is renewed only if the file still has the rejected one. After a restart of
        TorchServe, or a renewal by another process, the file already has its successor.
        """
        with self._exclusively():
            if self.header(kind) == rejected:
                self._renew(kind)
            return self.header(kind)

    def auth(self, kind: str) -> AuthBase:
        """Returns the `auth` argument for the `requests` library."""
        return _Auth(self, kind)

    def middleware(self, kind: str) -> aiohttp.ClientMiddlewareType:
        """Returns a client middleware for aiohttp."""

        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            access = _Access(self, kind)
            while True:
                request.headers.update(access.header)
                response = await handler(request)
                # Leaves the body of any other response for the caller to read.
                if response.status != requests.codes.bad_request:
                    return response
                body = await response.read()
                if not await asyncio.to_thread(access.should_retry, response.status, body):
                    return response

        return authorize

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Waits until no other thread or process is renewing a key in this file."""
        try:
            file = self.file.open()
        except FileNotFoundError:
            yield
            return
        with file:
            with suppress(OSError):  # the file system does not support locks
                lock(file, timeout_s=None)
            yield

    def _renew(self, kind: str) -> None:
        """Requests a new key from TorchServe, which revokes the old one and rewrites the file."""
        try:
            response = requests.get(
                f"{self.management_url}/token",
                {"type": kind},
                headers=self.header("API"),
                timeout=TIMEOUT_S,
            )
            response.raise_for_status()
        except requests.RequestException as error:
            log.warning("TorchServe key could not be renewed", kind=kind, reason=str(error))
        else:
            log.info("TorchServe key renewed", kind=kind)

    def _read(self) -> dict[str, Any]:
        for _ in range(MAX_READS):
            try:
                keys: dict[str, Any] = json.loads(self.file.read_text())
            except FileNotFoundError:
                break
            except ValueError:
                time.sleep(READ_RETRY_S)
            else:
                return keys
        return {}


def is_key_rejection(status: int, body: bytes) -> bool:
    """Returns whether a response reports an invalid or expired key."""
    # The handler rejects input with the same status, but without this error type.
    if status != requests.codes.bad_request:
        return False
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("type") == "InvalidKeyException"


class _Access:
    """Authorizes one call and counts its tries.

    Attributes:
        header: authorization header of the next try.
    """

    def __init__(self, tokens: Tokens, kind: str) -> None:
        self.header = tokens.header(kind)
        self._tokens = tokens
        self._kind = kind
        self._tries = 0

    def should_retry(self, status: int, body: bytes) -> bool:
        """Returns whether to retry the call after this response; may renew the key."""
        self._tries += 1
        if self._tries == MAX_TRIES or not is_key_rejection(status, body):
            return False
        rejected = self.header
        self.header = self._tokens.header_after_rejection(self._kind, rejected)
        return self.header != rejected


class _Auth(AuthBase):
    def __init__(self, tokens: Tokens, kind: str) -> None:
        self._tokens = tokens
        self._kind = kind

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        access = _Access(self._tokens, self._kind)
        request.headers.update(access.header)
        request.hooks["response"].append(partial(self._repeat, access))
        return request

    def _repeat(
        self, access: _Access, response: requests.Response, **options: Any
    ) -> requests.Response:
        while access.should_retry(response.status_code, response.content):
            request = response.request.copy()
            request.headers.update(access.header)
            # Not through the session, which would call this hook again.
            response = response.connection.send(request, **options)
        return response
