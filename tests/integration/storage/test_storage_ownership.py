"""A cache directory or a bucket belongs to one database; other instances are rejected."""

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
from tests.support.storage import OpenHost, persist_job
from tests.support.tables import new_id

STARTED_WITHIN_S = 60


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def rejection(settings: Settings) -> str:
    """Runs `musiclab orchestrator`, which must fail; returns its error message."""
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


async def leave_queued_job(settings: Settings) -> str:
    """Submits a job and stops the API; returns the id of the job, which stays queued."""
    async with api(settings) as client:
        return await accepted(await generate(client))


async def test_a_second_instance_on_one_cache_is_rejected(
    settings: Settings, tmp_path: Path
) -> None:
    job_id = await leave_queued_job(settings)
    second = settings_in(tmp_path / "second").model_copy(update={"cache": settings.cache})
    with running(settings, "orchestrator"):
        before = contents(settings.cache)
        assert f"music_{job_id}/track1.wav" in before
        message = rejection(second)
        assert f"MUSICLAB_CACHE is {settings.cache}, which holds the files of another" in message
        assert contents(settings.cache) == before
    with running(second.model_copy(update={"cache": tmp_path / "other"}), "orchestrator"):
        assert contents(settings.cache) == before


async def test_an_instance_with_another_postgresql_database_is_rejected(
    postgres: PostgresServer, settings: Settings
) -> None:
    urls = [postgres.create_database(f"test_{new_id()}") for _ in range(2)]
    first, second = (settings.model_copy(update={"database_url": url}) for url in urls)
    await leave_queued_job(first)
    before = contents(settings.cache)
    assert "another database" in rejection(second)
    await leave_queued_job(first)
    assert contents(settings.cache).items() > before.items()


async def test_a_cache_without_a_marker_is_adopted(settings: Settings) -> None:
    """The cache and the database are in the state left by a version without markers."""
    job_id = await leave_queued_job(settings)
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
async def test_the_service_starts_while_the_bucket_is_unreachable(
    settings: Settings, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is reachable again, nothing is deleted before its owner is checked."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = s3.create_bucket(f"bucket-{new_id()}")
    files = open_storage(url, settings.cache, settings.scratch_dir)
    await files.claim("f" * 32)
    await persist_job(files, "a", generated_wav=b"music")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{settings.metrics_port}")
    async with api(settings, files_url=url) as client:
        assert (await client.get("/health")).status == 200
        assert isinstance(client.server, TestServer)
        cleanup = Cleanup(client.server.app[DATABASE], files, retention_s=60)
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


async def test_files_of_a_lost_database_are_quarantined_for_a_day(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator has deleted the marker, as the error message suggests."""
    monkeypatch.setattr(cleanup_module, "LEASE_S", 0.1)
    files = LocalStorage(settings.cache)
    await files.create("a")
    (files.workspace("a") / GENERATED).write_bytes(b"music")
    await files.claim("f" * 32)
    assert "delete" in rejection(settings)
    (settings.cache / MARKER).unlink()
    quarantined = settings.cache / "quarantine" / "music_a" / GENERATED

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(STARTED_WITHIN_S):
            while not condition():
                await asyncio.sleep(0.05)

    async with api(settings):
        await until(quarantined.exists)
        assert quarantined.read_bytes() == b"music"
    yesterday = quarantined.stat().st_mtime - 24 * 3600 - 60
    os.utime(quarantined.parent, (yesterday, yesterday))
    async with api(settings):
        await until(lambda: not quarantined.parent.exists())


async def test_files_belong_to_the_first_database_that_claims_them(open_host: OpenHost) -> None:
    here, there = open_host("here"), open_host("there")
    await here.claim("a" * 32)
    await persist_job(here, "a", track1_mp3=b"one")
    for _ in range(2):
        with pytest.raises(SettingsError, match=REJECTED):
            await there.claim("b" * 32)
        await there.claim("a" * 32)
    assert await there.read("a", "track1.mp3") == b"one"
    assert await here.job_ids() == {"a"}


REJECTED = (
    r"MUSICLAB_(CACHE|FILES_URL) is .*, which holds the files of another database; set it to "
    r".*delete .*\.musiclab-database"
)


async def test_concurrent_claims_succeed_for_one_database(open_host: OpenHost) -> None:
    claims = (open_host(f"host{each}").claim(str(each) * 32) for each in range(8))
    rejected = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(each is None for each in rejected) == 1, rejected
    assert sum(isinstance(each, SettingsError) for each in rejected) == 7


async def test_a_marker_needs_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", reject)
    files = LocalStorage(tmp_path / "cache")
    await files.claim("a" * 32)
    with pytest.raises(SettingsError, match=REJECTED):
        await files.claim("b" * 32)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [MARKER]
