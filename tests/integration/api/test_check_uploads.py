"""Uploads to be checked that are too long, stand still or break off."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientConnectionError

from orchestrator.api import multipart as form_module
from orchestrator.settings import Settings
from orchestrator.storage.scratch import exclusive_folder
from tests.support.api import api, assert_nothing_left, code_of, scratch

MIB = 2**20
HEAD = (
    b'--x\r\nContent-Disposition: form-data; name="track1"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n"
)
ZEROS = bytes(256 * 1024)
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


async def test_reading_ends_where_the_limit_is_crossed(settings: Settings) -> None:
    """The client would go on for ever."""
    async with api(settings, max_track_mb=1) as client:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            yield HEAD
            while True:
                sent += len(ZEROS)
                yield ZEROS

        answer = await client.post("/api/check/track1", data=endless(), headers=MULTIPART)
        assert await code_of(answer) == (400, "file_too_large")
        assert sent < 20 * MIB
        assert_nothing_left(client, settings)


async def test_an_upload_that_stands_still_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_module, "STALLED_S", 0.5)
    async with api(settings) as client:

        async def stalling() -> AsyncIterator[bytes]:
            yield HEAD + ZEROS
            await asyncio.sleep(60)

        answer = await client.post("/api/check/track1", data=stalling(), headers=MULTIPART)
        assert await code_of(answer) == (408, "upload_timeout")
        assert_nothing_left(client, settings)


async def test_what_a_killed_process_was_receiving_goes_with_the_next_one(
    settings: Settings,
) -> None:
    """The files lie where the next process empties all that a dead one left."""
    left = settings.scratch_dir / "1" / "check_killed"
    async with api(settings) as client:

        async def breaking_off() -> AsyncIterator[bytes]:
            yield HEAD + ZEROS
            while not any(scratch(client).rglob("track1.wav")):
                await asyncio.sleep(0.01)
            (received,) = scratch(client).iterdir()
            assert received.parent == left.parent
            assert received.name.startswith("check_")
            raise BrokenOffError

        with pytest.raises(ClientConnectionError):
            await client.post("/api/check/track1", data=breaking_off(), headers=MULTIPART)
        while any(scratch(client).iterdir()):
            await asyncio.sleep(0.01)
    left.mkdir()
    (left / "track1.wav").write_bytes(ZEROS)
    with exclusive_folder(settings.scratch_dir) as folder:
        assert folder == left.parent
        assert list(folder.iterdir()) == []


class BrokenOffError(Exception):
    pass
