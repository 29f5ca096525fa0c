"""Uploads for a check that are too large, stall or are aborted."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientConnectionError

from orchestrator.api import multipart as form_module
from orchestrator.settings import Settings
from orchestrator.storage.scratch import exclusive_folder
from tests.support.api import api, assert_nothing_left, scratch, status_and_code

MIB = 2**20
HEAD = (
    b'--x\r\nContent-Disposition: form-data; name="track1"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n"
)
ZEROS = bytes(256 * 1024)
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


async def test_reading_stops_when_the_limit_is_exceeded(settings: Settings) -> None:
    """The client would send forever."""
    async with api(settings, max_track_mb=1) as client:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            yield HEAD
            while True:
                sent += len(ZEROS)
                yield ZEROS

        response = await client.post("/api/check/track1", data=endless(), headers=MULTIPART)
        assert await status_and_code(response) == (400, "file_too_large")
        assert sent < 20 * MIB
        assert_nothing_left(client, settings)


async def test_a_stalled_upload_is_aborted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_module, "STALL_TIMEOUT_S", 0.5)
    async with api(settings) as client:

        async def stalling() -> AsyncIterator[bytes]:
            yield HEAD + ZEROS
            await asyncio.sleep(60)

        response = await client.post("/api/check/track1", data=stalling(), headers=MULTIPART)
        assert await status_and_code(response) == (408, "upload_timeout")
        assert_nothing_left(client, settings)


async def test_uploads_of_a_killed_process_are_deleted_by_the_next_one(
    settings: Settings,
) -> None:
    """The files are in a scratch directory, which the next process empties."""
    left = settings.scratch_dir / "1" / "check_killed"
    async with api(settings) as client:

        async def aborting() -> AsyncIterator[bytes]:
            yield HEAD + ZEROS
            while not any(scratch(client).rglob("track1.wav")):
                await asyncio.sleep(0.01)
            (received,) = scratch(client).iterdir()
            assert received.parent == left.parent
            assert received.name.startswith("check_")
            raise AbortedError

        with pytest.raises(ClientConnectionError):
            await client.post("/api/check/track1", data=aborting(), headers=MULTIPART)
        while any(scratch(client).iterdir()):
            await asyncio.sleep(0.01)
    left.mkdir()
    (left / "track1.wav").write_bytes(ZEROS)
    with exclusive_folder(settings.scratch_dir) as directory:
        assert directory == left.parent
        assert list(directory.iterdir()) == []


class AbortedError(Exception):
    pass
