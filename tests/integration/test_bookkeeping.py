"""A job's whole life with a model that answers at once: events, reuse, races, retries."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import sqlalchemy as sa
from aiohttp import ClientResponse, FormData, web
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app, create_worker_app
from orchestrator.api.app_keys import DATABASE, JOB_TABLE, LEASES, STORAGE, WORKER
from orchestrator.audio import ffmpeg
from orchestrator.audio.window import Window
from orchestrator.database.schema import jobs
from orchestrator.jobs.admission import Admission
from orchestrator.serving import watcher as torchserve
from orchestrator.settings import Settings
from orchestrator.storage.base import GENERATED, part_name, window_name
from orchestrator.worker import worker
from tests.support.cache import entries
from tests.support.postgres import PostgresServer
from tests.support.quick_model import MUSIC, VERSION, Client, quick_model, with_quick_model
from tests.support.s3 import S3Server
from tests.support.signals import RATE, encoded, noise
from tests.support.tables import NO_LIMITS, UPLOAD, new_id
from tests.support.tracks import make_endless_wav

RACES = 1000
TAKEN_S = 0.5  # by a model that is slow enough to learn from
LONGEST_S = 300
TRACK1, TRACK2 = (encoded(noise(RATE // 4, seed)) for seed in (1, 2))

Scenario = Callable[[Client], Coroutine[Any, Any, None]]


def form(track1: bytes | IO[bytes] = TRACK1, **fields: str) -> FormData:
    data = FormData()
    for name, track in (("track1", track1), ("track2", TRACK2)):
        data.add_field(name, track, filename=f"{name}.wav")
    for name, value in fields.items():
        data.add_field(name, value)
    return data


def run(settings: Settings, scenario: Scenario, **changed: Any) -> None:
    async def served() -> None:
        chosen = settings.model_copy(update={"rate_limit": 0, "max_queued": 0, **changed})
        async with asyncio.timeout(LONGEST_S), with_quick_model(chosen) as client:
            await scenario(client)

    asyncio.run(served())


@pytest.fixture
def shared(
    settings: Settings, s3: S3Server, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """PostgreSQL and a bucket, as several hosts have them."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    name = new_id()
    urls = {"database_url": postgres.create_database(name), "files_url": s3.create_bucket(name)}
    return settings.model_copy(update=urls)


@pytest.fixture(params=["folder", "bucket"])
def anywhere(request: pytest.FixtureRequest, settings: Settings, shared: Settings) -> Settings:
    """SQLite and a folder; PostgreSQL and a bucket."""
    return settings if request.param == "folder" else shared


async def submit(client: Client, data: FormData | None = None) -> str:
    answer = await client.post("/api/generate", data=data or form())
    assert answer.status == 202, await answer.text()
    return str((await answer.json())["job_id"])


async def status(client: Client, job_id: str) -> dict[str, Any]:
    answer = await client.get(f"/api/status/{job_id}")
    assert answer.status == 200, await answer.text()
    document: dict[str, Any] = await answer.json()
    return document


async def finished(client: Client, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (document := await status(client, job_id))["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.02)
    return document


async def events(answer: ClientResponse) -> AsyncIterator[tuple[int | None, dict[str, Any]]]:
    """The id and the document of each event, until the stream ends."""
    assert answer.content_type == "text/event-stream"
    async for block in _blocks(answer):
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        if "data" in fields:
            number = fields.get("id")
            yield None if number is None else int(number), json.loads(fields["data"])


async def _blocks(answer: ClientResponse) -> AsyncIterator[str]:
    while block := await answer.content.readuntil(b"\n\n"):
        yield block.decode()


def test_from_upload_to_cleanup(anywhere: Settings) -> None:
    async def scenario(client: Client) -> None:
        app = client.app
        assert app is not None
        job_id = await submit(client)
        done = await finished(client, job_id)
        assert (done["status"], done["progress"], done["attempts"]) == ("completed", 100, 1)
        assert (done["model_version"], done["codec"]) == (VERSION, "starter")
        assert set(done["timings"]) == {"queued", "convert", "wait", "generate", "save"}
        assert await (await client.get(f"/api/download/{job_id}")).read() == MUSIC
        async with asyncio.timeout(5):
            while await app[STORAGE].names(job_id) != {"generated.wav"}:
                await asyncio.sleep(0.02)
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        assert await app[STORAGE].job_ids() == set()
        for path in ("status", "download", "events"):
            assert (await client.get(f"/api/{path}/{job_id}")).status == 404

    run(anywhere, scenario)


def test_ranges_and_etags_of_the_download(anywhere: Settings) -> None:
    async def scenario(client: Client) -> None:
        job_id = await submit(client)
        await finished(client, job_id)
        path = f"/api/download/{job_id}"
        whole = await client.get(path)
        tag = whole.headers["ETag"]
        assert whole.headers["Accept-Ranges"] == "bytes"
        for asked, start, stop in (("0-99", 0, 100), ("100-", 100, None), ("-50", -50, None)):
            part = await client.get(path, headers={"Range": f"bytes={asked}", "If-Range": tag})
            assert part.status == 206
            assert await part.read() == MUSIC[start:stop]
            assert part.headers["Content-Range"].endswith(f"/{len(MUSIC)}")
        changed = await client.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
        assert (changed.status, await changed.read()) == (200, MUSIC)
        beyond = await client.get(path, headers={"Range": f"bytes={len(MUSIC)}-"})
        assert (beyond.status, (await beyond.json())["code"]) == (416, "invalid_range")
        assert beyond.headers["Content-Range"] == f"bytes */{len(MUSIC)}"
        unchanged = await client.get(path, headers={"If-None-Match": tag})
        assert (unchanged.status, await unchanged.read()) == (304, b"")
        head = await client.head(path)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(MUSIC)))

    run(anywhere, scenario)


def test_events_tell_every_change_and_end(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        job_id = await submit(client)
        told = [each async for each in events(await client.get(f"/api/events/{job_id}"))]
        numbers = [number for number, _ in told if number is not None]
        assert numbers == sorted(numbers)
        assert told[-1][1] == await status(client, job_id)
        assert told[-1][1]["status"] == "completed"

        # Whoever was away since the second one is told all that came after it, and only that.
        again = await client.get(f"/api/events/{job_id}", headers={"Last-Event-ID": "2"})
        missed = [each async for each in events(again)]
        assert [number for number, _ in missed] == list(range(3, numbers[-1] + 1))
        progress = [document["progress"] for _, document in missed]
        assert progress == sorted(progress)
        over = await client.get(
            f"/api/events/{job_id}", headers={"Last-Event-ID": str(numbers[-1])}
        )
        assert over.status == 204
        refused = await client.get(f"/api/events/{job_id}", headers={"Last-Event-ID": "x"})
        assert (refused.status, (await refused.json())["code"]) == (400, "invalid_event_id")

    run(settings, scenario)


def test_events_tell_that_a_job_moves_up_and_is_deleted(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        app = client.app
        assert app is not None
        await app[WORKER].finish(0)  # nothing is taken any more
        first, second = [await submit(client) for _ in range(2)]
        told = events(await client.get(f"/api/events/{second}"))
        number, document = await anext(told)
        assert (number, document["queue_position"]) == (1, 2)
        await client.delete(f"/api/cleanup/{first}")
        number, document = await anext(told)
        assert (number, document["queue_position"]) == (1, 1)
        await client.delete(f"/api/cleanup/{second}")
        assert await anext(told) == (None, {"job_id": second, "status": "deleted"})
        assert [each async for each in told] == []

    run(settings, scenario)


def test_a_result_that_has_no_name_yet_is_reused(anywhere: Settings) -> None:
    async def scenario(client: Client) -> None:
        app = client.app
        assert app is not None
        first = await submit(client)
        await finished(client, first)
        async with asyncio.timeout(10):
            while await app[STORAGE].names(first) != {GENERATED}:
                await asyncio.sleep(0.01)
        await app[STORAGE].rename(first, GENERATED, part_name(1))  # as a moment before
        second = await submit(client)
        assert (await status(client, second))["status"] == "completed"
        for job_id in (first, second):
            assert await app[STORAGE].names(job_id) == {GENERATED}
            assert await (await client.get(f"/api/download/{job_id}")).read() == MUSIC

    run(anywhere, scenario)


def test_a_repeated_request_is_answered_with_what_was_made(anywhere: Settings) -> None:
    async def scenario(client: Client) -> None:
        app = client.app
        assert app is not None
        first = await submit(client)
        await finished(client, first)
        second = await submit(client)
        assert second != first
        reused = await status(client, second)
        assert (reused["status"], reused["attempts"], reused["model_version"]) == (
            "completed",
            0,
            VERSION,
        )
        assert (await client.delete(f"/api/cleanup/{second}")).status == 200
        assert await (await client.get(f"/api/download/{first}")).read() == MUSIC
        third = await submit(client)
        await client.delete(f"/api/cleanup/{first}")
        assert await (await client.get(f"/api/download/{third}")).read() == MUSIC
        assert await app[STORAGE].names(third) == {"generated.wav"}
        other = await submit(client, form(start_time="0.1"))
        assert (await status(client, other))["status"] != "completed"
        named = await submit(client, form(model_version=VERSION))
        assert (await status(client, named))["status"] == "completed"

    run(anywhere, scenario)


def test_reuse_can_be_switched_off(settings: Settings) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(2):
            done = await finished(client, await submit(client))
            assert done["attempts"] == 1

    run(settings, scenario, reuse_results=False)


def test_a_later_attempt_need_not_convert_again(
    anywhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, converted, asked = ffmpeg.convert, [], []
    tried = asyncio.Event()

    async def noting(source: Path, window: Window, target: Path) -> bytes:
        converted.append(await convert(source, window, target))
        return converted[-1]

    async def predict(request: web.Request) -> web.Response:
        form = await request.post()
        fields = [form["track1"], form["track2"]]
        asked.append([field.file.read() for field in fields if isinstance(field, web.FileField)])
        if len(asked) == 2:
            return web.Response(body=MUSIC)
        await tried.wait()
        return web.json_response({"code": 503, "message": "Prediction failed"}, status=503)

    monkeypatch.setattr(ffmpeg, "convert", noting)
    monkeypatch.setattr(worker, "RETRY_S", (0.01, 0.05))

    async def scenario() -> None:
        async with with_quick_model(anywhere, predict) as client, asyncio.timeout(30):
            app = client.app
            assert app is not None
            job_id = await submit(client)
            windows = {window_name(track) for track in (1, 2)}
            while await app[STORAGE].names(job_id) != windows:  # the uploads are gone
                await asyncio.sleep(0.02)
            tried.set()
            done = await finished(client, job_id)
            assert (done["status"], done["attempts"]) == ("completed", 2)

    asyncio.run(scenario())
    assert len(converted) == 2
    assert [sorted(windows) for windows in asked] == 2 * [sorted(converted)]


def test_the_remaining_time_is_learned(settings: Settings) -> None:
    async def unhurried(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(TAKEN_S)
        return web.Response(body=MUSIC)

    async def scenario() -> None:
        chosen = settings.model_copy(update={"rate_limit": 0})
        async with asyncio.timeout(LONGEST_S), with_quick_model(chosen, unhurried) as client:
            app = client.app
            assert app is not None
            first = await submit(client)
            await finished(client, first)
            await client.delete(f"/api/cleanup/{first}")  # what was learned outlives it
            await app[WORKER].finish(0)
            await asyncio.sleep(1.1)  # for which what was learned is valid
            left = []
            for _ in range(3):
                left.append((await status(client, await submit(client)))["eta_seconds"])
            assert TAKEN_S <= left[0] < left[1] < left[2] < 60

    asyncio.run(scenario())


def test_deleting_a_job_ends_its_ffmpeg_within_a_second(settings: Settings, tmp_path: Path) -> None:
    long = make_endless_wav(tmp_path / "long.wav", 50 * 2**20)

    async def scenario(client: Client) -> None:
        with long.open("rb") as file:
            job_id = await submit(client, form(file, start_time_1="1e6"))
        async with asyncio.timeout(20):
            while not ffmpegs():
                await asyncio.sleep(0.01)
        began = time.monotonic()
        assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
        assert time.monotonic() - began < 1
        assert ffmpegs() == []
        assert entries(settings.cache) == []
        assert (await client.get(f"/api/status/{job_id}")).status == 404

    run(settings, scenario)


def test_deleting_a_job_ends_its_ffmpeg_on_another_host_too(
    shared: Settings, tmp_path: Path
) -> None:
    long = make_endless_wav(tmp_path / "long.wav", 50 * 2**20)

    async def scenario() -> None:
        api = create_app(shared, runs_jobs=False)
        async with (
            quick_model(shared) as host,
            TestClient(TestServer(create_worker_app(host))),
            TestClient(TestServer(api)) as client,
        ):
            with long.open("rb") as file:
                job_id = await submit(client, form(file, start_time_1="1e6"))
            async with asyncio.timeout(20):
                while not ffmpegs():
                    await asyncio.sleep(0.01)
            assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
            async with asyncio.timeout(1):
                while ffmpegs():
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                while await api[STORAGE].job_ids() or list(shared.scratch_dir.glob("*/*")):
                    await asyncio.sleep(0.05)

    asyncio.run(scenario())


def ffmpegs() -> list[psutil.Process]:
    """Those that read a window, and are children of this process."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "ffmpeg" in child.name() and "-frames:a" not in child.cmdline():
                found.append(child)
    return found


def test_deletion_races_completion(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times a DELETE comes at some moment of the last stages."""
    monkeypatch.setattr(torchserve, "WATCH_INTERVAL_S", 0.2)
    chance = random.Random(4)  # noqa: S311
    deleted, completed = 0, 0

    async def scenario(client: Client) -> None:
        nonlocal deleted, completed
        app = client.app
        assert app is not None

        async def race() -> None:
            nonlocal deleted, completed
            job_id = await converted_job(client)
            app[WORKER].wake()
            moment = chance.choice((0, 30, 50, 95, 100))
            while (await status(client, job_id))["progress"] < moment:
                await asyncio.sleep(0.005)
            await asyncio.sleep(chance.uniform(0, 0.02))
            download = await client.get(f"/api/download/{job_id}")
            assert download.status in (200, 400), await download.text()
            if download.status == 200:
                assert await download.read() == MUSIC
                completed += 1
            answer = await client.delete(f"/api/cleanup/{job_id}")
            assert answer.status == 200, await answer.text()
            deleted += 1
            assert (await client.get(f"/api/status/{job_id}")).status == 404

        async def races() -> None:
            for _ in range(RACES // 8):
                await race()

        await asyncio.gather(*(races() for _ in range(8)))
        await asyncio.sleep(0.5)
        assert await app[STORAGE].job_ids() == set()

    run(settings, scenario)
    assert deleted == RACES
    assert RACES / 20 < completed < RACES - RACES / 20, "the moments miss the race; adapt them"


async def converted_job(client: Client) -> str:
    """A queued job whose tracks are converted already, which ffmpeg would need a second for."""
    app, job_id = client.app, new_id()
    assert app is not None
    await Admission(app[DATABASE], app[LEASES].owner, NO_LIMITS).admit(
        job_id, "192.0.2.1", 1, repeated=False
    )
    await app[STORAGE].create(job_id)
    for track in (1, 2):
        (app[STORAGE].workspace(job_id) / window_name(track)).write_bytes(TRACK1)

    def work(connection: sa.Connection) -> None:
        app[JOB_TABLE].submit(job_id, UPLOAD, connection)
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(converted=True))

    await app[DATABASE].write(work)
    return job_id
