"""Storage for the files of jobs: a local directory, or a bucket shared by many hosts."""

from pathlib import Path

from orchestrator.storage.base import JobStorage
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.s3 import open_bucket


def open_storage(url: str | None, cache: Path, scratch: Path) -> JobStorage:
    """Opens the storage at `url` (`s3://bucket/prefix`), or the directory `cache` without a URL.

    Raises:
        SettingsError: the URL or the bucket's environment variables are invalid.
    """
    return open_bucket(url, scratch) if url else LocalStorage(cache)
