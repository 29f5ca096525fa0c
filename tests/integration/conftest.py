"""Fixtures of the integration tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.settings import Settings
from orchestrator.storage import open_storage
from orchestrator.storage import s3 as s3_module
from orchestrator.storage.local import LocalStorage
from tests.support.postgres import PostgresServer
from tests.support.proxied_api import ProxiedApi, proxied_api, track
from tests.support.s3 import S3Server
from tests.support.storage import SPEEDUP, OpenHost
from tests.support.tables import new_id

TIMEOUTS = ("CONNECT_TIMEOUT", "READ_TIMEOUT", "RETRY_FOR", "FIRST_BACKOFF", "LONGEST_BACKOFF")


@pytest.fixture
def shared(
    settings: Settings, s3: S3Server, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings for a PostgreSQL database and an S3 bucket, which several hosts can share."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    name = new_id()
    urls = {"database_url": postgres.create_database(name), "files_url": s3.create_bucket(name)}
    return settings.model_copy(update=urls)


@pytest.fixture(params=["directory", "bucket"])
def backend_settings(
    request: pytest.FixtureRequest, settings: Settings, shared: Settings
) -> Settings:
    """Settings for SQLite and a directory in one run, for PostgreSQL and a bucket in another."""
    return settings if request.param == "directory" else shared


@pytest.fixture(params=["directory", "bucket"])
def open_host(request: pytest.FixtureRequest, tmp_path: Path) -> OpenHost:
    """Opens the storage as the named host; one run uses a directory, another a bucket."""
    if request.param == "directory":
        return lambda _: LocalStorage(tmp_path / "cache")
    opens: OpenHost = request.getfixturevalue("open_bucket_host")
    return opens


@pytest.fixture
def open_bucket_host(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenHost:
    """Opens the bucket of the test, which is created empty, as the named host."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = s3.create_bucket(f"bucket-{new_id()}") + "/some/prefix"
    return lambda name: open_storage(url, tmp_path / "no-cache", tmp_path / name)


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divides the timeouts of buckets by SPEEDUP."""
    for name in TIMEOUTS:
        monkeypatch.setattr(s3_module, name, getattr(s3_module, name) / SPEEDUP)


@pytest.fixture
def tracks(tmp_path: Path) -> tuple[Path, Path]:
    """Two tracks, each two seconds of different noise."""
    return track(tmp_path, 31), track(tmp_path, 32)


@pytest.fixture
async def proxied(settings: Settings) -> AsyncIterator[ProxiedApi]:
    """An API behind a proxy that injects faults."""
    async with proxied_api(settings) as proxied:
        yield proxied
