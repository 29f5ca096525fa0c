"""File locks, and atomic and durable writes."""

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

POLL_S = 0.1


def lock(file: int | IO[Any], timeout_s: float | None = 0.0) -> bool:
    """Locks an open file or directory; returns False if it is still locked after `timeout_s`.

    The kernel releases the lock when the file is closed or the process ends for any reason.

    Args:
        file: open file or directory.
        timeout_s: seconds to wait for another process to release the lock; None waits forever.

    Raises:
        OSError: the file system does not support locks.
    """
    if timeout_s is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True


def temporary_path(path: Path, *, hidden: bool = True) -> Path:
    """Returns an unused path in the same directory."""
    return path.with_name(f"{'.' if hidden else ''}{path.name}.{uuid.uuid4().hex}")


@contextmanager
def atomic_write(path: Path, *, durable: bool = False, hidden: bool = True) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to `path` when the block succeeds.

    Args:
        path: file to create or replace; it appears complete or not at all.
        durable: whether the file must survive a power failure.
        hidden: whether the name of the temporary file starts with a dot.
    """
    part = temporary_path(path, hidden=hidden)
    try:
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
            sync(path)
    finally:
        part.unlink(missing_ok=True)  # left by a failure, or if both paths link to one file


def sync(*paths: Path) -> None:
    """Flushes files and their directories to disk, so that they survive a power failure."""
    folders = {above for path in paths for above in (path.parent, path.parent.parent)}
    for path in [*paths, *folders]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some file systems cannot sync directories.
            if path not in folders or error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
