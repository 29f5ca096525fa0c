"""Files of jobs, as several hosts have them."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orchestrator.storage.base import JobStorage, upload_name

HASTE = 4  # by which `short_timeouts` divides all times that are given to a bucket
UPLOAD = upload_name(1, ".mp3")

OpenHost = Callable[[str], JobStorage]


async def kept(files: JobStorage, job_id: str, **contents: bytes) -> None:
    """A job with these files; underscores in the names stand for dots."""
    await files.create(job_id)
    names = [name.replace("_", ".") for name in contents]
    for name, content in zip(names, contents.values(), strict=True):
        (files.workspace(job_id) / name).write_bytes(content)
    await files.persist(job_id, *names)


async def lacks(attempt: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(FileNotFoundError):
        await attempt
