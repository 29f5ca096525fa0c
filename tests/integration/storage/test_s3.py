"""Bucket URLs, and buckets that are unreachable, missing or reject the credentials."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SettingsError, StorageUnavailableError
from orchestrator.storage import open_storage
from orchestrator.storage.base import GENERATED, JobStorage
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.s3 import S3Storage
from tests.support.s3 import S3Server
from tests.support.storage import SPEEDUP, OpenHost, persist_job

FAILED_WITHIN_S = 30


async def failure_times(files: JobStorage) -> list[float]:
    """Returns how many seconds each operation takes to fail while the bucket is unreachable."""

    async def one(attempt: Coroutine[Any, Any, object]) -> float:
        started = time.monotonic()
        with pytest.raises(StorageUnavailableError, match=r"of job|that have files"):
            await attempt
        return time.monotonic() - started

    attempts = (
        files.persist("a", "track1.mp3"),
        files.persist("a", "track2.mp3"),
        files.fetch("a", GENERATED),
        files.read("a", GENERATED),
        files.list_names("a"),
        files.rename("a", "track1.mp3", GENERATED),
        files.copy("a", "track1.mp3", "b"),
        files.delete("a", GENERATED),
        files.remove("b"),
        files.job_ids(),
    )
    return await asyncio.gather(*map(one, attempts))


@pytest.mark.usefixtures("short_timeouts")
async def test_an_unreachable_bucket_fails_in_time_and_may_recover(
    open_bucket_host: OpenHost, s3: S3Server
) -> None:
    files = open_bucket_host("here")
    await persist_job(files, "a", track1_mp3=b"one", track2_mp3=bytes(20_000_000))
    with s3.frozen():
        silent = await failure_times(files)
    assert max(silent) < FAILED_WITHIN_S / SPEEDUP
    s3.stop()
    try:
        refusing = await failure_times(files)
    finally:
        s3.start()
    assert max(refusing) < FAILED_WITHIN_S / SPEEDUP
    assert await open_bucket_host("there").read("a", "track1.mp3") == b"one"


async def test_a_missing_bucket_is_not_mistaken_for_missing_files(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    files = open_storage("s3://missing-bucket", tmp_path, tmp_path)
    missing = r"x\.wav of job a failed: the bucket does not exist"
    with pytest.raises(StorageUnavailableError, match=missing):
        await files.read("a", "x.wav")
    with pytest.raises(StorageUnavailableError, match="The specified bucket does not exist"):
        await files.list_names("a")


async def test_a_wrong_key_is_reported(
    open_bucket_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StorageUnavailableError, match=r"of job a failed: .*signature"):
        await open_bucket_host("here").read("a", GENERATED)


def test_without_a_url_the_files_are_in_the_cache(tmp_path: Path) -> None:
    for url in (None, ""):
        files = open_storage(url, tmp_path / "cache", tmp_path / "scratch")
        assert isinstance(files, LocalStorage)
        assert files.workspace("a") == tmp_path / "cache" / "music_a"


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket/a/prefix/"])
def test_a_url_selects_a_bucket(tmp_path: Path, url: str) -> None:
    files = open_storage(url, tmp_path / "cache", tmp_path / "scratch")
    assert isinstance(files, S3Storage)
    assert files.workspace("a") == tmp_path / "scratch" / "music_a"


@pytest.mark.parametrize(
    "url", ["bucket", "s3://", "s3:///prefix", "gs://bucket", "/srv/files", "s3://b/p?x=1"]
)
def test_a_url_without_a_bucket_is_rejected(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"MUSICLAB_FILES_URL .* s3://bucket/prefix"):
        open_storage(url, tmp_path, tmp_path)
