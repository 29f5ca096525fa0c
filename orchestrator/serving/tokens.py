"""The keys that TorchServe asks for, and how a call goes on when its key has ended."""

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
# Of one call. Those that renew the same key at the same time, as on file systems without locks, end
# each other's new ones.
MAX_TRIES = 5
# TorchServe writes the file in place, so it may be found empty or cut short.
MAX_READS = 5
READ_AGAIN_S = 0.005

log = structlog.get_logger()


@dataclass(frozen=True)
class Tokens:
    """The keys in TorchServe's key_file.json; read at each use, as others renew them too.

    A call goes out with `auth` by requests and with `middleware` by aiohttp. Both repeat it with
    another key when TorchServe refuses the one that it had, which no worker has seen by then. It is
    the refusal that tells: the clock here may be another than TorchServe's, and who took a key out
    of the file by hand may use it for as long as the file says.

    Attributes:
        file: where TorchServe writes them; nobody else does.
        management_url: of the API that makes new ones, without a slash at its end.
    """

    file: Path
    management_url: str

    def header(self, kind: str) -> dict[str, str]:
        """The authorization header; none while the file is not written."""
        keys = self._read()
        return {"Authorization": f"Bearer {keys[kind]['key']}"} if kind in keys else {}

    def header_after(self, kind: str, refused: dict[str, str]) -> dict[str, str]:
        """The header after one that was refused; the same where no key can be had.

        A new key is made only while the file still has the refused one: after a restart of
        TorchServe, or where another renewed it, the file has the next one already.
        """
        with self._exclusively():
            if self.header(kind) == refused:
                self._renew(kind)
            return self.header(kind)

    def auth(self, kind: str) -> AuthBase:
        """For the argument of that name in requests."""
        return _Auth(self, kind)

    def middleware(self, kind: str) -> aiohttp.ClientMiddlewareType:
        """One of those that aiohttp's client takes."""

        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            access = _Access(self, kind)
            while True:
                request.headers.update(access.header)
                response = await handler(request)
                # The body of an answer that is taken is the caller's to read.
                if response.status != requests.codes.bad_request:
                    return response
                body = await response.read()
                if not await asyncio.to_thread(access.again, response.status, body):
                    return response

        return authorize

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Wait until no other thread or process renews a key in this file."""
        try:
            file = self.file.open()
        except FileNotFoundError:
            yield
            return
        with file:
            with suppress(OSError):  # the file system has no locks
                lock(file, timeout_s=None)
            yield

    def _renew(self, kind: str) -> None:
        """Ask TorchServe for a new key; it ends the old one and rewrites the file."""
        try:
            response = requests.get(
                f"{self.management_url}/token",
                {"type": kind},
                headers=self.header("API"),
                timeout=TIMEOUT_S,
            )
            response.raise_for_status()
        except requests.RequestException as error:
            log.warning("TorchServe gave no new key", kind=kind, reason=str(error))
        else:
            log.info("TorchServe gave a new key", kind=kind)

    def _read(self) -> dict[str, Any]:
        for _ in range(MAX_READS):
            try:
                keys: dict[str, Any] = json.loads(self.file.read_text())
            except FileNotFoundError:
                break
            except ValueError:
                time.sleep(READ_AGAIN_S)
            else:
                return keys
        return {}


def is_refusal(status: int, body: bytes) -> bool:
    """Whether an answer says that the key is wrong or has ended."""
    # Requests that the handler refuses have the same status, but no such type.
    if status != requests.codes.bad_request:
        return False
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.get("type") == "InvalidKeyException"


class _Access:
    """The tries of one call.

    Attributes:
        header: what to send next.
    """

    def __init__(self, tokens: Tokens, kind: str) -> None:
        self.header = tokens.header(kind)
        self._tokens = tokens
        self._kind = kind
        self._tries = 0

    def again(self, status: int, body: bytes) -> bool:
        """Whether to repeat the call that was answered so; may ask TorchServe for a key."""
        self._tries += 1
        if self._tries == MAX_TRIES or not is_refusal(status, body):
            return False
        refused = self.header
        self.header = self._tokens.header_after(self._kind, refused)
        return self.header != refused


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
        while access.again(response.status_code, response.content):
            request = response.request.copy()
            request.headers.update(access.header)
            # Past the session: it would call this again.
            response = response.connection.send(request, **options)
        return response
