"""Retries of calls with another TorchServe key, and requests for new keys.

A fake server reproduces situations that cannot be provoked reliably in TorchServe: a key renewed by
another process during a call, an `API` key that is rejected, a key file that is being written.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import requests

from orchestrator.serving.tokens import MAX_TRIES, Tokens

WAIT_S = 10.0
CONCURRENT_CALLS = 8
REJECTION_MESSAGE = (
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
)
REJECTION = json.dumps(
    {"code": 400, "type": "InvalidKeyException", "message": REJECTION_MESSAGE}
).encode()
BODY = b"both tracks"

Call = Callable[[Tokens], tuple[int, bytes]]


class TorchServe(ThreadingHTTPServer):
    """A server with one path that requires the inference key, and the API that creates keys.

    Attributes:
        keys: the valid keys by kind; a new key rewrites `key_file`.
        expired: kinds whose keys are rejected even if they are right.
        bodies: the bodies of the calls to the path, in order.
        renewals: the kinds of the new keys requested, in order.
        on_call: called before the key of a call is checked.
        response: status and body of the response to a call with the right key.
    """

    def __init__(self, key_file: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key_file = key_file
        self.numbers = itertools.count(1)
        self.keys = {kind: f"{kind}-0" for kind in ("inference", "management", "API")}
        self.write()
        self.expired: set[str] = set()
        self.bodies: list[bytes] = []
        self.renewals: list[str] = []
        self.on_call: Callable[[], None] = lambda: None
        self.response = (200, b"music")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def write(self) -> None:
        """Replace the file atomically, so that no call reads a partial file."""
        part = self.key_file.with_suffix(".part")
        part.write_text(json.dumps({kind: {"key": key} for kind, key in self.keys.items()}))
        part.rename(self.key_file)

    def renew(self, kind: str) -> None:
        self.keys[kind] = f"{kind}-{next(self.numbers)}"
        self.write()

    def accepts(self, kind: str, header: str | None) -> bool:
        return header == f"Bearer {self.keys[kind]}" and kind not in self.expired


class Handler(BaseHTTPRequestHandler):
    server: TorchServe

    def do_GET(self) -> None:
        (kind,) = parse_qs(urlsplit(self.path).query)["type"]
        self.server.renewals.append(kind)
        if not self.server.accepts("API", self.headers["Authorization"]):
            self._respond(400, REJECTION)
            return
        self.server.renew(kind)
        self._respond(200, b"\n")

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.on_call()
        accepted = self.server.accepts("inference", self.headers["Authorization"])
        self._respond(*(self.server.response if accepted else (400, REJECTION)))

    def _respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def torchserve(tmp_path: Path) -> Iterator[TorchServe]:
    with TorchServe(tmp_path / "key_file.json") as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def keys(torchserve: TorchServe) -> Tokens:
    return Tokens(torchserve.key_file, torchserve.url)


def by_requests(keys: Tokens) -> tuple[int, bytes]:
    response = requests.post(
        keys.management_url, data=BODY, auth=keys.auth("inference"), timeout=WAIT_S
    )
    return response.status_code, response.content


def by_aiohttp(keys: Tokens) -> tuple[int, bytes]:
    async def called() -> tuple[int, bytes]:
        middlewares = [keys.middleware("inference")]
        async with (
            asyncio.timeout(WAIT_S),
            aiohttp.ClientSession() as session,
            session.post(keys.management_url, data=BODY, middlewares=middlewares) as response,
        ):
            return response.status, await response.read()

    return asyncio.run(called())


@pytest.fixture(params=[by_requests, by_aiohttp])
def call(request: pytest.FixtureRequest) -> Call:
    chosen: Call = request.param
    return chosen


def test_an_accepted_key_is_kept(torchserve: TorchServe, keys: Tokens, call: Call) -> None:
    assert call(keys) == (200, b"music")
    assert (torchserve.bodies, torchserve.renewals) == ([BODY], [])


def test_an_expired_key_is_renewed_and_the_whole_call_repeated(
    torchserve: TorchServe, keys: Tokens, call: Call
) -> None:
    torchserve.keys["inference"] = "not in the file"
    assert call(keys) == (200, b"music")
    assert (torchserve.bodies, torchserve.renewals) == ([BODY] * 2, ["inference"])
    assert torchserve.keys["management"] == "management-0"
    assert call(keys) == (200, b"music")
    assert (len(torchserve.bodies), len(torchserve.renewals)) == (3, 1)


def test_a_key_renewed_by_another_process_is_not_renewed_again(
    torchserve: TorchServe, keys: Tokens, call: Call
) -> None:
    renewals_left = iter([True, True])  # the key changes again before the first retry

    def renewed_by_another() -> None:
        if next(renewals_left, False):
            torchserve.renew("inference")

    torchserve.on_call = renewed_by_another
    assert call(keys) == (200, b"music")
    assert (len(torchserve.bodies), torchserve.renewals) == (3, [])


def test_concurrent_rejections_create_one_new_key(torchserve: TorchServe) -> None:
    """Each call has its own `Tokens`, as a separate process would."""
    torchserve.keys["inference"] = "not in the file"
    all_sent = threading.Barrier(CONCURRENT_CALLS, timeout=WAIT_S)
    firsts = iter(range(CONCURRENT_CALLS))

    def wait_for_all() -> None:
        if next(firsts, None) is not None:
            all_sent.wait()

    torchserve.on_call = wait_for_all
    with ThreadPoolExecutor(CONCURRENT_CALLS) as threads:
        clients = [Tokens(torchserve.key_file, torchserve.url) for _ in range(CONCURRENT_CALLS)]
        responses = list(threads.map(by_requests, clients))
    assert responses == [(200, b"music")] * CONCURRENT_CALLS
    assert torchserve.renewals == ["inference"]


def test_a_call_whose_key_is_never_accepted_ends_after_max_tries(
    torchserve: TorchServe, keys: Tokens, call: Call
) -> None:
    torchserve.expired.add("inference")
    assert call(keys) == (400, REJECTION)
    assert len(torchserve.bodies) == MAX_TRIES


def test_the_rejection_is_returned_if_no_key_can_be_created(
    torchserve: TorchServe, keys: Tokens, call: Call
) -> None:
    torchserve.expired |= {"inference", "API"}
    assert call(keys) == (400, REJECTION)
    assert (len(torchserve.bodies), len(torchserve.renewals)) == (1, 1)


def test_the_rejection_is_returned_without_a_key_file(
    torchserve: TorchServe, keys: Tokens, call: Call
) -> None:
    torchserve.key_file.unlink()
    assert keys.header("inference") == {}
    assert call(keys) == (400, REJECTION)
    assert len(torchserve.bodies) == 1


@pytest.mark.parametrize(
    "response",
    [
        (400, b'{"code": "not_audio", "detail": "track2 is not audio"}'),
        (400, b"[]"),
        (400, b"no JSON"),
        (503, REJECTION),
    ],
    ids=str,
)
def test_other_responses_are_returned_unchanged(
    torchserve: TorchServe, keys: Tokens, call: Call, response: tuple[int, bytes]
) -> None:
    torchserve.response = response
    assert call(keys) == response
    assert (len(torchserve.bodies), torchserve.renewals) == (1, [])


def test_a_file_that_is_being_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key_file.json"
    states = iter(['{"inference": {"ke', '{"inference": {"key": "new"}}'])
    file.write_text("")
    monkeypatch.setattr("time.sleep", lambda seconds: file.write_text(next(states)))
    header = Tokens(file, "http://127.0.0.1:1").header("inference")
    assert header == {"Authorization": "Bearer new"}
