"""A cache folder belongs to one database, whoever else is started on it."""

import asyncio
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
from orchestrator.jobs import cleanup as sweep_module
from orchestrator.jobs.cleanup import Cleanup
from orchestrator.settings import PROJECT, Settings
from orchestrator.storage import open_storage
from orchestrator.storage import s3 as files_module
from orchestrator.storage.base import GENERATED, MARKER
from orchestrator.storage.local import LocalStorage
from tests.conftest import settings_in
from tests.integration.test_files import HASTE, TIMES, kept
from tests.integration.test_submission import generate, job_from_row, with_api
from tests.support.cache import entries
from tests.support.postgres import PostgresServer
from tests.support.quick_model import Client
from tests.support.s3 import S3Server
from tests.support.service import command, environment, running
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


def left_by_a_dead_process(settings: Settings) -> str:
    """A job that waits, with its files."""
    jobs: list[str] = []

    async def scenario(client: Client) -> None:
        jobs.append(await job_from_row(await generate(client)))

    with_api(settings, scenario)
    return jobs[0]


def test_a_second_instance_on_one_cache_is_refused(settings: Settings, tmp_path: Path) -> None:
    job_id = left_by_a_dead_process(settings)
    second = settings_in(tmp_path / "second").model_copy(update={"cache": settings.cache})
    with running(settings, "orchestrator"):
        before = contents(settings.cache)
        assert f"music_{job_id}/track1.wav" in before
        sentence = refusal(second)
        assert f"MUSICLAB_CACHE is {settings.cache}, which holds the files of another" in sentence
        assert contents(settings.cache) == before
    with running(second.model_copy(update={"cache": tmp_path / "other"}), "orchestrator"):
        assert contents(settings.cache) == before


def test_an_instance_with_another_postgresql_is_refused(
    postgres: PostgresServer, settings: Settings
) -> None:
    urls = [postgres.create_database(f"test_{new_id()}") for _ in range(2)]
    first, second = (settings.model_copy(update={"database_url": url}) for url in urls)
    left_by_a_dead_process(first)
    before = contents(settings.cache)
    assert "another database" in refusal(second)
    left_by_a_dead_process(first)
    assert contents(settings.cache).items() > before.items()


def test_a_cache_without_a_marker_is_adopted(settings: Settings) -> None:
    """As it was left, with its database, by a version that knew of no markers."""
    job_id = left_by_a_dead_process(settings)
    (settings.cache / MARKER).unlink()
    engine = sa.create_engine(f"sqlite:///{settings.database_file}")
    with engine.begin() as connection:
        identity.drop(connection)
    engine.dispose()

    async def scenario(client: Client) -> None:
        status = await (await client.get(f"/api/status/{job_id}")).json()
        assert status["status"] == "queued"
        assert entries(settings.cache) == [f"music_{job_id}"]

    with_api(settings, scenario)
    assert (settings.cache / MARKER).read_text() == opened_id(settings)


def test_a_bucket_that_is_away_does_not_keep_the_service_from_starting(
    settings: Settings, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in it is deleted, once it is back, before it is known whose it is."""
    for name in TIMES:
        monkeypatch.setattr(files_module, name, getattr(files_module, name) / HASTE)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = s3.create_bucket(f"bucket-{new_id()}")
    files = open_storage(url, settings.cache, settings.scratch_dir)
    asyncio.run(files.claim("f" * 32))
    asyncio.run(kept(files, "a", generated_wav=b"music"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{settings.metrics_port}")

    async def scenario(client: Client) -> None:
        assert (await client.get("/health")).status == 200
        assert isinstance(client.server, TestServer)
        sweep = Cleanup(client.server.app[DATABASE], files, kept_s=60)
        with pytest.raises(SettingsError, match="another database"):
            await sweep.everything()

    with_api(settings, scenario, files_url=url)
    assert asyncio.run(files.names("a")) == {GENERATED}
    assert asyncio.run(files.quarantined()) == {}


def test_a_database_keeps_its_id(settings: Settings) -> None:
    first = opened_id(settings)
    assert len(first) == 32
    assert opened_id(settings) == first
    other = settings.model_copy(update={"run_dir": settings.run_dir / "other"})
    assert opened_id(other) != first


def opened_id(settings: Settings) -> str:
    async def opened() -> str:
        database = Database("", settings.database_file)
        await database.open()
        await database.close()
        return database.id

    return asyncio.run(opened())


def test_files_of_a_database_that_is_gone_are_kept_for_a_day(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has deleted the marker, as the sentence says."""
    monkeypatch.setattr(sweep_module, "LEASE_S", 0.1)
    files = LocalStorage(settings.cache)
    asyncio.run(files.create("a"))
    (files.workspace("a") / GENERATED).write_bytes(b"music")
    asyncio.run(files.claim("f" * 32))
    assert "delete" in refusal(settings)
    (settings.cache / MARKER).unlink()
    aside = settings.cache / "quarantine" / "music_a" / GENERATED

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(STARTED_WITHIN_S):
            while not condition():
                await asyncio.sleep(0.05)

    async def set_aside(_: Client) -> None:
        await until(aside.exists)
        assert aside.read_bytes() == b"music"

    async def deleted(_: Client) -> None:
        await until(lambda: not aside.parent.exists())

    with_api(settings, set_aside)
    yesterday = aside.stat().st_mtime - 24 * 3600 - 60
    os.utime(aside.parent, (yesterday, yesterday))
    with_api(settings, deleted)
