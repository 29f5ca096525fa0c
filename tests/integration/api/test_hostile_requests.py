"""Denial-of-service requests, and forms that the network splits at arbitrary bytes."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app
from orchestrator.api.app_keys import JOB_TABLE
from orchestrator.audio.window import Window
from orchestrator.settings import Settings
from tests.support.api import SOUND, api, form, status_and_code
from tests.support.hostile_mp4 import crafted_mp4
from tests.support.hostile_requests import (
    BOUNDARY,
    COMPRESSED,
    FORM,
    MB,
    PART,
    attacks,
    run_attack,
    tiny_chunks,
)
from tests.support.project import PROJECT
from tests.support.quick_model import Client
from tests.support.service import environment

POSTS = ["/api/generate", "/api/check/track1"]
ORIGIN = "http://localhost:3000"
READY_WITHIN_S = 60
HELD_S = 0.02  # the most CPU time for which one callback may block the event loop
MAX_HEALTH_S = 1.0  # far longer than /health takes, far shorter than a successful attack delays it


async def test_any_content_encoding_is_rejected(settings: Settings) -> None:
    server = TestServer(create_app(settings))
    await server.start_server(auto_decompress=False)
    async with TestClient(server) as client:
        for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "identity", ""):
            await assert_encoding_rejected(client, encoding)


async def assert_encoding_rejected(client: Client, encoding: str) -> None:
    sent = {"Content-Encoding": encoding, "Origin": ORIGIN}
    for method, path in (
        ("POST", "/api/generate"),
        ("POST", "/api/check/track1"),
        ("GET", "/api/status/x"),
        ("DELETE", "/api/cleanup/x"),
        ("PUT", "/health"),
        ("POST", "/nowhere"),
    ):
        rejected = await client.request(method, path, data=b"x", headers=sent)
        assert await status_and_code(rejected) == (415, "unsupported_content_encoding"), path
        assert repr(encoding) in (await rejected.json())["detail"]
        assert rejected.headers["Accept-Encoding"] == "identity"
        assert rejected.headers["Access-Control-Allow-Origin"] == ORIGIN
    preflight = sent | {"Access-Control-Request-Method": "POST"}
    assert (await client.options("/api/generate", headers=preflight)).status == 415


@contextmanager
def watched_service(settings: Settings, report: Path) -> Iterator[None]:
    """`musiclab orchestrator`, which writes its longest event loop callbacks to `report`."""
    program = [sys.executable, "-m", "benchmarks.watched_service"]
    command = [*program, str(report), "orchestrator"]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment(settings), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any(line.startswith("Ready") for line in process.stdout), "it did not start"
            yield
        finally:
            process.terminate()


async def test_attacks_do_not_block_other_clients(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"rate_limit": 0, "log_level": "warning"})
    report = tmp_path / "report.json"
    with watched_service(settings, report):
        url = f"http://127.0.0.1:{settings.api_port}"
        requests.post(f"{url}/api/generate", data=b"x", headers=FORM, timeout=READY_WITHIN_S)
        began = time.time()  # the start and the first request are not measured
        for name, attack in attacks().items():
            seen = run_attack(url, attack, clients=8, seconds=1)
            assert seen.statuses == {415 if name == COMPRESSED else 400}, name
            assert max(seen.health) < MAX_HEALTH_S, (name, max(seen.health))
        response = await send_chunks(settings.api_port, tiny_chunks(500_000))
        assert b"malformed_form" in response
    held = [each for each in json.loads(report.read_text()) if each[1] > began]
    assert held[0][0] < HELD_S, held[:5]


async def send_chunks(port: int, body: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {POSTS[1]} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    writer.write(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body)
    try:
        return await asyncio.wait_for(reader.readuntil(b"}"), READY_WITHIN_S)
    finally:
        writer.close()


async def exchange(port: int, *pieces: bytes, length: int, path: str = "/api/generate") -> bytes:
    """Sends a form in pieces, 50 ms apart, with this Content-Length; returns the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n"
        )
        fields = "".join(f"{name}: {value}\r\n" for name, value in FORM.items())
        writer.write(f"{head}{fields}\r\n".encode())
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.05)
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.readuntil(b"}"), READY_WITHIN_S)
    finally:
        writer.close()


async def test_crafted_files_are_rejected_quickly(settings: Settings) -> None:
    async with api(settings) as client:

        async def rejected(samples: int) -> None:
            data = FormData()
            for track, content in (("track1", crafted_mp4(16, samples)), ("track2", SOUND[0])):
                name = "a.m4a" if track == "track1" else "a.wav"
                data.add_field(track, content, filename=name)
            response = await client.post("/api/generate", data=data)
            assert await status_and_code(response) == (400, "not_audio")
            assert "track1" in (await response.json())["detail"]

        async with asyncio.timeout(5):
            await asyncio.gather(*(rejected(millions * MB) for millions in (3, 5, 8, 11, 15, 21)))


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\r\n", "begins with b'\\\\r\\\\n--x'; it must begin with its boundary, b'--xyz'"),
        (b"\n\n\n\n\n\n", "begins with b'\\\\n\\\\n\\\\n\\\\n\\\\n'"),
        (b"a preamble\r\n", "begins with b'a pre'"),
        (PART + b"X: y\r\n" * 20, "header count"),
        (PART + b"X: " + b"y" * 20_000, "header length"),
        (PART + b"X: y\r\n" + b" x\r\n" * 20_000, "header continuation"),
        (f"--{BOUNDARY}x".encode(), "after first boundary"),
    ],
    ids=["CRLF", "newlines", "preamble", "many headers", "long header", "folded", "no boundary"],
)
async def test_a_malformed_form_is_rejected_after_its_first_bytes(
    settings: Settings, start: bytes, reason: str
) -> None:
    app = create_app(settings)
    async with TestServer(app) as server:
        assert server.port is not None
        for path in POSTS:
            # The rest of the announced body is never sent.
            sent = start + PART
            response = await exchange(server.port, sent, length=60 * MB, path=path)
            assert b" 400 " in response.partition(b"\r\n")[0], response
            assert b"malformed_form" in response
            assert reason.encode() in response


TEXTS = {"start_time": b"123.5", "end_time": b"139.25"}


def whole_form() -> tuple[bytes, int]:
    """Returns a form of two text fields and two tracks, and the length of the text fields."""
    texts = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in TEXTS.items()
    )
    tracks = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
        f'name="track{number}"; filename="{number}.wav"\r\n\r\n'.encode()
        + SOUND[number]
        + b"\r\n"
        for number in (1, 2)
    )
    return texts + tracks + f"--{BOUNDARY}--\r\n".encode(), len(texts)


async def test_fields_are_read_completely_wherever_the_network_splits_them(
    settings: Settings,
) -> None:
    body, texts = whole_form()
    cuts = [*range(1, texts + 1), *range(len(body) - 5, len(body))]
    slots = asyncio.Semaphore(4)  # few, so that the first piece is read before the second is sent
    app = create_app(settings.model_copy(update={"rate_limit": 0, "max_queued": 0}))
    async with TestServer(app) as server:

        async def windows(cut: int) -> tuple[Window, ...]:
            assert server.port is not None
            async with slots:
                response = await exchange(server.port, body[:cut], body[cut:], length=len(body))
            document = json.loads(response.rpartition(b"\r\n\r\n")[2])
            job = await app[JOB_TABLE].get(document["job_id"])
            assert job is not None
            return tuple(job.windows)

        found = await asyncio.gather(*map(windows, cuts))
        expected = (Window(123.5, 139.25),) * 2
        wrong = {cut: seen for cut, seen in zip(cuts, found, strict=True) if seen != expected}
        assert not wrong, f"split at these bytes, the form had other windows: {wrong}"


async def test_a_text_field_that_is_too_long_is_rejected(settings: Settings) -> None:
    async with api(settings) as client:
        longest = await client.post("/api/generate", data=form(start_time="1" + " " * 127))
        assert longest.status == 202, await longest.text()
        too_long = form(start_time="1" + " " * 127 + "2")
        rejected = await client.post("/api/generate", data=too_long)
        assert await status_and_code(rejected) == (400, "malformed_form")
        assert (await rejected.json())["detail"] == "start_time is longer than 128 bytes"
