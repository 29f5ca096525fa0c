"""Checking a track before submission, which needs no model."""

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientResponse, FormData

from orchestrator.audio import probing
from orchestrator.audio.ffmpeg import find_ffmpeg
from orchestrator.settings import Settings
from tests.support.api import api, assert_nothing_left, generate, status_and_code
from tests.support.quick_model import Client
from tests.support.service import Service
from tests.support.signals import RATE, encoded, noise
from tests.support.songs import songs
from tests.support.tracks import make_endless_wav

KEY = {"X-API-Key": "a key"}
MIB = 2**20
TEXT = b"this is a text, not music\n" * 100
SOUND = encoded(noise(RATE, 1))


async def check_name(client: Client, track: str = "track1", **query: Any) -> ClientResponse:
    return await client.get(f"/api/check/{track}", params=query)


async def check_content(
    client: Client, name: str, content: bytes, track: str = "track1", **headers: str
) -> ClientResponse:
    data = FormData()
    data.add_field(track, io.BytesIO(content), filename=name)
    return await client.post(f"/api/check/{track}", data=data, headers=headers)


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        ({"name": "a.wav", "size": MIB}, None, ""),
        ({"name": "A.B.MP3", "size": 1}, None, ""),
        ({"name": "notes.txt", "size": 5}, "unsupported_format", "track1 is named 'notes.txt'"),
        ({"name": "", "size": 5}, "unsupported_format", ".mp3"),
        ({"name": "a.wav", "size": 0}, "empty_file", "track1 is an empty file"),
        ({"name": "a.wav", "size": MIB + 1}, "file_too_large", "track1 is larger than 1,048,576"),
        ({"name": "a.wav", "size": "-1"}, "invalid_size", "'-1'"),
        ({"name": "a.wav", "size": "1.5"}, "invalid_size", "'1.5'"),
        ({"name": "a.wav", "size": "9" * 5000}, "invalid_size", "99"),
        ({"name": "a.wav", "size": ""}, "invalid_size", "''"),
        ({"name": "a.wav"}, "missing_field", "size"),
        ({"size": "5"}, "missing_field", "name"),
        ({"name": "a.wav", "size": "5", "x": "1"}, "unknown_field", "'x'"),
        ({"name": "a.wav", "size": ["5", "6"]}, "repeated_field", "size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_names_and_sizes_are_checked(
    settings: Settings, query: dict[str, Any], code: str | None, named: str
) -> None:
    async with api(settings, max_track_mb=1, api_keys="a key") as client:
        response = await check_name(client, **query)  # without a key
        if code is None:
            assert response.status == 204, await response.text()
            assert response.headers["Cache-Control"] == "no-store"
            return
        assert await status_and_code(response) == (400, code)
        assert named in (await response.json())["detail"]


async def test_checks_return_the_same_errors_as_generate(
    settings: Settings,
) -> None:
    async with api(settings, max_track_mb=1, rate_limit=0) as client:
        for name, content in (("notes.txt", b"x"), ("a.wav", b""), ("a.wav", bytes(MIB + 1))):
            data = FormData()
            data.add_field("track2", io.BytesIO(content), filename=name)
            generated = await (await generate(client, data)).json()
            for track in ("track2", "track1"):
                checks = [
                    await check_name(client, track, name=name, size=len(content)),
                    await check_content(client, name, content, track),
                ]
                expected = generated["detail"].replace("track2", track)
                assert [(await each.json())["detail"] for each in checks] == [expected] * 2


async def test_other_track_names_are_rejected(settings: Settings) -> None:
    async with api(settings) as client:
        for response in (
            await check_name(client, "track3", name="a.wav", size=1),
            await check_content(client, "a.wav", SOUND, "track3"),
        ):
            assert await status_and_code(response) == (400, "unknown_field")
            assert "track1, track2" in (await response.json())["detail"]


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The first forty seconds of a song in three formats, by file name."""
    directory = tmp_path_factory.mktemp("song")
    kinds = {"song.mp3": "libmp3lame", "song.m4a": "alac", "song.ogg": "libvorbis"}
    for name, codec in kinds.items():
        source = [
            "-t",
            "40",
            "-i",
            str(songs()[0]),
            "-vn",
            "-ac",
            "2",
            "-ar",
            "44100",
            "-c:a",
            codec,
        ]
        subprocess.run([find_ffmpeg(), "-v", "error", *source, directory / name], check=True)
    return {name: (directory / name).read_bytes() for name in kinds}


@pytest.mark.parametrize("name", ["song.mp3", "song.m4a", "song.ogg"])
async def test_checking_a_song_returns_its_duration(
    settings: Settings, song: dict[str, bytes], name: str
) -> None:
    async with api(settings) as client:
        response = await check_content(client, name, song[name])
        assert response.status == 200, await response.text()
        document = await response.json()
        assert document.keys() == {"duration_s"}
        assert document["duration_s"] == pytest.approx(40, abs=0.06)  # MP3 is padded
        assert_nothing_left(client, settings)


async def test_checking_a_truncated_song_returns_its_actual_duration(
    settings: Settings, song: dict[str, bytes]
) -> None:
    """Its header still declares forty seconds."""
    async with api(settings) as client:
        for name in ("song.mp3", "song.ogg"):
            response = await check_content(client, name, song[name][: len(song[name]) // 2])
            assert 12 < (await response.json())["duration_s"] < 28


async def test_a_duration_that_takes_too_long_to_measure_is_null(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "DURATION_TIMEOUT_S", 0.01)
    long = make_endless_wav(tmp_path / "long.wav", 20 * MIB).read_bytes()
    async with api(settings) as client:
        response = await check_content(client, "long.wav", long)
        assert await response.json() == {"duration_s": None}


@pytest.mark.parametrize(
    ("name", "content", "code", "named"),
    [
        ("notes.wav", TEXT, "not_audio", "track1 contains no audio"),
        ("empty.mp3", b"", "empty_file", "track1"),
        ("notes.txt", TEXT, "unsupported_format", "notes.txt"),
        ("large.wav", bytes(MIB + 1), "file_too_large", "track1"),
        ("header.wav", encoded(np.zeros(0, dtype=np.float32)), "not_audio", "track1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_invalid_file_is_rejected(
    settings: Settings, name: str, content: bytes, code: str, named: str
) -> None:
    async with api(settings, max_track_mb=1) as client:
        rejected = await check_content(client, name, content)
        assert await status_and_code(rejected) == (400, code)
        assert named in (await rejected.json())["detail"]
        assert_nothing_left(client, settings)


async def test_an_m4a_without_its_index_is_rejected(
    settings: Settings, song: dict[str, bytes]
) -> None:
    async with api(settings) as client:
        half = song["song.m4a"][: len(song["song.m4a"]) // 2]
        assert await status_and_code(await check_content(client, "song.m4a", half)) == (
            400,
            "not_audio",
        )


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([], "missing_field"),
        (["track2"], "unknown_field"),
        (["track1", "track1"], "repeated_field"),
        (["track1", "start_time"], "unknown_field"),
    ],
)
async def test_the_form_must_hold_exactly_the_track(
    settings: Settings, fields: list[str], code: str
) -> None:
    async with api(settings) as client:
        data = FormData(default_to_multipart=True)
        for field in fields:
            data.add_field(field, SOUND, filename="a.wav")
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        sent = {"data": data} if fields else {"data": b"--x--\r\n", "headers": headers}
        rejected = await client.post("/api/check/track1", **sent)
        assert await status_and_code(rejected) == (400, code)
        text = FormData({"track1": "text"}, default_to_multipart=True)
        assert await status_and_code(await client.post("/api/check/track1", data=text)) == (
            400,
            "not_a_file",
        )
        plain = await client.post("/api/check/track1", data=b"x")
        assert await status_and_code(plain) == (400, "not_multipart")
        assert_nothing_left(client, settings)


async def test_checking_content_requires_the_api_key(settings: Settings) -> None:
    async with api(settings, api_keys="a key") as client:
        assert await status_and_code(await check_content(client, "a.wav", SOUND)) == (
            401,
            "unauthorized",
        )
        assert (await check_content(client, "a.wav", SOUND, **KEY)).status == 200


async def test_checks_and_jobs_share_one_rate_limit(settings: Settings) -> None:
    async with api(settings, rate_limit=2) as client:
        assert (await check_content(client, "a.wav", SOUND)).status == 200
        assert (await generate(client)).status == 202
        for rejected in (await check_content(client, "a.wav", SOUND), await generate(client)):
            assert await status_and_code(rejected) == (429, "too_many_requests")
            assert 0 < int(rejected.headers["Retry-After"]) <= 60
        assert (await check_name(client, name="a.wav", size=1)).status == 204


async def test_a_nearly_full_disk_rejects_checks(settings: Settings) -> None:
    async with api(settings, min_free_disk_percent=100) as client:
        assert await status_and_code(await check_content(client, "a.wav", SOUND)) == (
            507,
            "storage_full",
        )


def test_a_check_creates_no_job(service: Service, song: dict[str, bytes]) -> None:
    before = service.cached_jobs()
    files = {"track2": ("song.mp3", song["song.mp3"])}
    response = service.call("POST", "/api/check/track2", files=files)
    assert response.status_code == 200, response.text
    assert response.json()["duration_s"] == pytest.approx(40, abs=0.06)
    assert service.cached_jobs() == before
