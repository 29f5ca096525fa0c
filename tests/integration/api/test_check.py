"""Checking a track before anything is generated. No model is needed."""

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
from tests.support.api import api, assert_nothing_left, code_of, generate
from tests.support.quick_model import Client
from tests.support.service import Service
from tests.support.signals import RATE, encoded, noise
from tests.support.songs import songs
from tests.support.tracks import make_endless_wav

KEY = {"X-API-Key": "a key"}
MIB = 2**20
TEXT = b"this is a text, not music\n" * 100
SOUND = encoded(noise(RATE, 1))


async def by_name(client: Client, track: str = "track1", **query: Any) -> ClientResponse:
    return await client.get(f"/api/check/{track}", params=query)


async def by_content(
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
        ({"name": "notes.txt", "size": 5}, "unsupported_format", "track1 is called 'notes.txt'"),
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
async def test_by_name_and_size(
    settings: Settings, query: dict[str, Any], code: str | None, named: str
) -> None:
    async with api(settings, max_track_mb=1, api_keys="a key") as client:
        answer = await by_name(client, **query)  # without a key
        if code is None:
            assert answer.status == 204, await answer.text()
            assert answer.headers["Cache-Control"] == "no-store"
            return
        assert await code_of(answer) == (400, code)
        assert named in (await answer.json())["detail"]


async def test_what_is_refused_by_name_is_refused_in_the_words_of_generate(
    settings: Settings,
) -> None:
    async with api(settings, max_track_mb=1, rate_limit=0) as client:
        for name, content in (("notes.txt", b"x"), ("a.wav", b""), ("a.wav", bytes(MIB + 1))):
            data = FormData()
            data.add_field("track2", io.BytesIO(content), filename=name)
            generated = await (await generate(client, data)).json()
            for track in ("track2", "track1"):
                said = [
                    await by_name(client, track, name=name, size=len(content)),
                    await by_content(client, name, content, track),
                ]
                expected = generated["detail"].replace("track2", track)
                assert [(await each.json())["detail"] for each in said] == [expected] * 2


async def test_other_tracks_are_unknown(settings: Settings) -> None:
    async with api(settings) as client:
        for answer in (
            await by_name(client, "track3", name="a.wav", size=1),
            await by_content(client, "a.wav", SOUND, "track3"),
        ):
            assert await code_of(answer) == (400, "unknown_field")
            assert "track1, track2" in (await answer.json())["detail"]


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The first forty seconds of a song, by name of file."""
    folder = tmp_path_factory.mktemp("song")
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
        subprocess.run([find_ffmpeg(), "-v", "error", *source, folder / name], check=True)
    return {name: (folder / name).read_bytes() for name in kinds}


@pytest.mark.parametrize("name", ["song.mp3", "song.m4a", "song.ogg"])
async def test_a_song_may_be_sent_and_its_length_is_told(
    settings: Settings, song: dict[str, bytes], name: str
) -> None:
    async with api(settings) as client:
        answer = await by_content(client, name, song[name])
        assert answer.status == 200, await answer.text()
        document = await answer.json()
        assert document.keys() == {"duration_s"}
        assert document["duration_s"] == pytest.approx(40, abs=0.06)  # MP3 is padded
        assert_nothing_left(client, settings)


async def test_of_a_song_that_is_cut_off_the_true_length_is_told(
    settings: Settings, song: dict[str, bytes]
) -> None:
    """Its header tells of forty seconds still."""
    async with api(settings) as client:
        for name in ("song.mp3", "song.ogg"):
            answer = await by_content(client, name, song[name][: len(song[name]) // 2])
            assert 12 < (await answer.json())["duration_s"] < 28


async def test_a_length_that_takes_long_to_count_is_not_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "COUNTED_WITHIN_S", 0.01)
    long = make_endless_wav(tmp_path / "long.wav", 20 * MIB).read_bytes()
    async with api(settings) as client:
        answer = await by_content(client, "long.wav", long)
        assert await answer.json() == {"duration_s": None}


@pytest.mark.parametrize(
    ("name", "content", "code", "named"),
    [
        ("notes.wav", TEXT, "not_audio", "track1 holds no audio"),
        ("empty.mp3", b"", "empty_file", "track1"),
        ("notes.txt", TEXT, "unsupported_format", "notes.txt"),
        ("large.wav", bytes(MIB + 1), "file_too_large", "track1"),
        ("header.wav", encoded(np.zeros(0, dtype=np.float32)), "not_audio", "track1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_file_at_fault_is_refused(
    settings: Settings, name: str, content: bytes, code: str, named: str
) -> None:
    async with api(settings, max_track_mb=1) as client:
        refused = await by_content(client, name, content)
        assert await code_of(refused) == (400, code)
        assert named in (await refused.json())["detail"]
        assert_nothing_left(client, settings)


async def test_an_m4a_without_its_index_is_refused(
    settings: Settings, song: dict[str, bytes]
) -> None:
    async with api(settings) as client:
        half = song["song.m4a"][: len(song["song.m4a"]) // 2]
        assert await code_of(await by_content(client, "song.m4a", half)) == (400, "not_audio")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([], "missing_field"),
        (["track2"], "unknown_field"),
        (["track1", "track1"], "repeated_field"),
        (["track1", "start_time"], "unknown_field"),
    ],
)
async def test_the_form_has_the_one_file(settings: Settings, fields: list[str], code: str) -> None:
    async with api(settings) as client:
        data = FormData(default_to_multipart=True)
        for field in fields:
            data.add_field(field, SOUND, filename="a.wav")
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        sent = {"data": data} if fields else {"data": b"--x--\r\n", "headers": headers}
        refused = await client.post("/api/check/track1", **sent)
        assert await code_of(refused) == (400, code)
        text = FormData({"track1": "text"}, default_to_multipart=True)
        assert await code_of(await client.post("/api/check/track1", data=text)) == (
            400,
            "not_a_file",
        )
        plain = await client.post("/api/check/track1", data=b"x")
        assert await code_of(plain) == (400, "not_multipart")
        assert_nothing_left(client, settings)


async def test_content_needs_the_key(settings: Settings) -> None:
    async with api(settings, api_keys="a key") as client:
        assert await code_of(await by_content(client, "a.wav", SOUND)) == (401, "unauthorized")
        assert (await by_content(client, "a.wav", SOUND, **KEY)).status == 200


async def test_both_count_against_one_rate_limit(settings: Settings) -> None:
    async with api(settings, rate_limit=2) as client:
        assert (await by_content(client, "a.wav", SOUND)).status == 200
        assert (await generate(client)).status == 202
        for refused in (await by_content(client, "a.wav", SOUND), await generate(client)):
            assert await code_of(refused) == (429, "too_many_requests")
            assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert (await by_name(client, name="a.wav", size=1)).status == 204


async def test_a_disk_that_is_nearly_full_is_said_to_be(settings: Settings) -> None:
    async with api(settings, min_free_disk_percent=100) as client:
        assert await code_of(await by_content(client, "a.wav", SOUND)) == (507, "storage_full")


def test_a_running_service_makes_no_job_of_it(service: Service, song: dict[str, bytes]) -> None:
    before = service.cached_jobs()
    files = {"track2": ("song.mp3", song["song.mp3"])}
    answer = service.call("POST", "/api/check/track2", files=files)
    assert answer.status_code == 200, answer.text
    assert answer.json()["duration_s"] == pytest.approx(40, abs=0.06)
    assert service.cached_jobs() == before
