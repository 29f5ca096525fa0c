"""Helpers for job files shared by several hosts."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orchestrator.storage.base import JobStorage, upload_name

SPEEDUP = 4  # factor by which `short_timeouts` divides all timeouts of bucket requests
UPLOAD = upload_name(1, ".mp3")

OpenHost = Callable[[str], JobStorage]


async def persist_job(files: JobStorage, job_id: str, **contents: bytes) -> None:
    """Create a job and persist these files; underscores in the names stand for dots."""
    await files.create(job_id)
    names = [name.replace("_", ".") for name in contents]
    for name, content in zip(names, contents.values(), strict=True):
        (files.workspace(job_id) / name).write_bytes(content)
    await files.persist(job_id, *names)


async def assert_missing(operation: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(FileNotFoundError):
        await operation
