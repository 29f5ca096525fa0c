"""Locks on files, and files that appear whole or not at all."""

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
    """Locks an open file or folder; False if another process still holds it after `timeout_s`.

    The kernel releases the lock when the file is closed or the process ends, however it ends.

    Args:
        file: what to lock.
        timeout_s: for how long another process may hold it, in seconds; None waits for ever.

    Raises:
        OSError: the file system has no locks.
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
    """An unused name in the folder of a path."""
    return path.with_name(f"{'.' if hidden else ''}{path.name}.{uuid.uuid4().hex}")


@contextmanager
def atomic_write(path: Path, *, durable: bool = False, hidden: bool = True) -> Iterator[Path]:
    """Gives a temporary path, which is renamed to `path` when the block succeeds.

    Args:
        path: what appears whole, or not at all; replaces what is there.
        durable: whether it has to outlast a power failure.
        hidden: whether the temporary path begins with a dot.
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
        part.unlink(missing_ok=True)  # after a failure, or where it is the same file as `path`


def sync(*paths: Path) -> None:
    """Makes files, and the folders that they are in, outlast a power failure."""
    folders = {above for path in paths for above in (path.parent, path.parent.parent)}
    for path in [*paths, *folders]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some file systems do not sync folders.
            if path not in folders or error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
