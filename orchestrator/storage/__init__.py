"""Where the files of jobs are kept: a local folder, or a bucket for many hosts."""

from pathlib import Path

from orchestrator.storage.base import JobStorage
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.s3 import open_bucket


def open_storage(url: str | None, cache: Path, scratch: Path) -> JobStorage:
    """The files at an URL: `s3://bucket/prefix`, or none for the folder `cache`.

    Raises:
        SettingsError: the URL, or what the environment says of the bucket, cannot be used.
    """
    return open_bucket(url, scratch) if url else LocalStorage(cache)
