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
from tests.support.storage import HASTE, OpenHost
from tests.support.tables import new_id

TIMES = ("CONNECT_TIMEOUT", "READ_TIMEOUT", "RETRY_FOR", "FIRST_BACKOFF", "LONGEST_BACKOFF")


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


@pytest.fixture(params=["folder", "bucket"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> OpenHost:
    """Opens the same files as a host of that name does."""
    if request.param == "folder":
        return lambda _: LocalStorage(tmp_path / "cache")
    opens: OpenHost = request.getfixturevalue("bucket_host")
    return opens


@pytest.fixture
def bucket_host(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenHost:
    """Opens the files in one new bucket as a host of that name does."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = s3.create_bucket(f"bucket-{new_id()}") + "/some/prefix"
    return lambda name: open_storage(url, tmp_path / "no-cache", tmp_path / name)


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is away is given up HASTE times as soon."""
    for name in TIMES:
        monkeypatch.setattr(s3_module, name, getattr(s3_module, name) / HASTE)


@pytest.fixture
def tracks(tmp_path: Path) -> tuple[Path, Path]:
    """Two seconds of two noises."""
    return track(tmp_path, 31), track(tmp_path, 32)


@pytest.fixture
async def proxied(settings: Settings) -> AsyncIterator[ProxiedApi]:
    """An API behind a flaky proxy."""
    async with proxied_api(settings) as proxied:
        yield proxied
