"""A cache folder or a bucket belongs to one database, whoever else is started on it."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiohttp.test_utils import TestServer

from orchestrator.api.app_keys import DATABASE
from orchestrator.database.engine import Database
from orchestrator.database.schema import identity
from orchestrator.errors import SettingsError
from orchestrator.jobs import cleanup as cleanup_module
from orchestrator.jobs.cleanup import Cleanup
from orchestrator.settings import Settings
from orchestrator.storage import open_storage
from orchestrator.storage.base import GENERATED, MARKER
from orchestrator.storage.local import LocalStorage
from tests.support.api import accepted, api, generate
from tests.support.cache import entries
from tests.support.postgres import PostgresServer
from tests.support.project import PROJECT
from tests.support.s3 import S3Server
from tests.support.service import command, environment, running
from tests.support.settings import settings_in
from tests.support.storage import OpenHost, kept
from tests.support.tables import new_id

STARTED_WITHIN_S = 60


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(settings: Settings) -> str:
    """What `musiclab orchestrator` says as it ends, with a status other than 0."""
    ended = subprocess.run(
        command("orchestrator"),
        cwd=PROJECT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=STARTED_WITHIN_S,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return " ".join(ended.stderr.split())


async def left_by_a_dead_process(settings: Settings) -> str:
    """A job that waits, with its files."""
    async with api(settings) as client:
        return await accepted(await generate(client))


async def test_a_second_instance_on_one_cache_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    job_id = await left_by_a_dead_process(settings)
    second = settings_in(tmp_path / "second").model_copy(update={"cache": settings.cache})
    with running(settings, "orchestrator"):
        before = contents(settings.cache)
        assert f"music_{job_id}/track1.wav" in before
        sentence = refusal(second)
        assert f"MUSICLAB_CACHE is {settings.cache}, which holds the files of another" in sentence
        assert contents(settings.cache) == before
    with running(second.model_copy(update={"cache": tmp_path / "other"}), "orchestrator"):
        assert contents(settings.cache) == before


async def test_an_instance_with_another_postgresql_is_refused(
    postgres: PostgresServer, settings: Settings
) -> None:
    urls = [postgres.create_database(f"test_{new_id()}") for _ in range(2)]
    first, second = (settings.model_copy(update={"database_url": url}) for url in urls)
    await left_by_a_dead_process(first)
    before = contents(settings.cache)
    assert "another database" in refusal(second)
    await left_by_a_dead_process(first)
    assert contents(settings.cache).items() > before.items()


async def test_a_cache_without_a_marker_is_adopted(settings: Settings) -> None:
    """As it was left, with its database, by a version that knew of no markers."""
    job_id = await left_by_a_dead_process(settings)
    (settings.cache / MARKER).unlink()
    engine = sa.create_engine(f"sqlite:///{settings.database_file}")
    with engine.begin() as connection:
        identity.drop(connection)
    engine.dispose()
    async with api(settings) as client:
        status = await (await client.get(f"/api/status/{job_id}")).json()
        assert status["status"] == "queued"
        assert entries(settings.cache) == [f"music_{job_id}"]
    assert (settings.cache / MARKER).read_text() == await database_id(settings)


@pytest.mark.usefixtures("short_timeouts")
async def test_a_bucket_that_is_away_does_not_keep_the_service_from_starting(
    settings: Settings, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in it is deleted, once it is back, before it is known whose it is."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = s3.create_bucket(f"bucket-{new_id()}")
    files = open_storage(url, settings.cache, settings.scratch_dir)
    await files.claim("f" * 32)
    await kept(files, "a", generated_wav=b"music")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{settings.metrics_port}")
    async with api(settings, files_url=url) as client:
        assert (await client.get("/health")).status == 200
        assert isinstance(client.server, TestServer)
        cleanup = Cleanup(client.server.app[DATABASE], files, kept_s=60)
        with pytest.raises(SettingsError, match="another database"):
            await cleanup.run_once()
    assert await files.list_names("a") == {GENERATED}
    assert await files.quarantined() == {}


async def test_a_database_keeps_its_id(settings: Settings) -> None:
    first = await database_id(settings)
    assert len(first) == 32
    assert await database_id(settings) == first
    other = settings.model_copy(update={"run_dir": settings.run_dir / "other"})
    assert await database_id(other) != first


async def database_id(settings: Settings) -> str:
    database = Database("", settings.database_file)
    await database.open()
    await database.close()
    return database.id


async def test_files_of_a_database_that_is_gone_are_kept_for_a_day(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has deleted the marker, as the sentence says."""
    monkeypatch.setattr(cleanup_module, "LEASE_S", 0.1)
    files = LocalStorage(settings.cache)
    await files.create("a")
    (files.workspace("a") / GENERATED).write_bytes(b"music")
    await files.claim("f" * 32)
    assert "delete" in refusal(settings)
    (settings.cache / MARKER).unlink()
    aside = settings.cache / "quarantine" / "music_a" / GENERATED

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(STARTED_WITHIN_S):
            while not condition():
                await asyncio.sleep(0.05)

    async with api(settings):
        await until(aside.exists)
        assert aside.read_bytes() == b"music"
    yesterday = aside.stat().st_mtime - 24 * 3600 - 60
    os.utime(aside.parent, (yesterday, yesterday))
    async with api(settings):
        await until(lambda: not aside.parent.exists())


async def test_files_belong_to_the_database_that_was_first(host: OpenHost) -> None:
    here, there = host("here"), host("there")
    await here.claim("a" * 32)
    await kept(here, "a", track1_mp3=b"one")
    for _ in range(2):
        with pytest.raises(SettingsError, match=REFUSED):
            await there.claim("b" * 32)
        await there.claim("a" * 32)
    assert await there.read("a", "track1.mp3") == b"one"
    assert await here.job_ids() == {"a"}


REFUSED = (
    r"MUSICLAB_(CACHE|FILES_URL) is .*, which holds the files of another database; set it to "
    r".*delete .*\.musiclab-database"
)


async def test_files_that_are_claimed_at_once_belong_to_one(host: OpenHost) -> None:
    claims = (host(f"host{each}").claim(str(each) * 32) for each in range(8))
    refused = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(each is None for each in refused) == 1, refused
    assert sum(isinstance(each, SettingsError) for each in refused) == 7


async def test_a_marker_needs_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    files = LocalStorage(tmp_path / "cache")
    await files.claim("a" * 32)
    with pytest.raises(SettingsError, match=REFUSED):
        await files.claim("b" * 32)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [MARKER]
