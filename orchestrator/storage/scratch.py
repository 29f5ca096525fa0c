"""A folder that a process has to itself for as long as it lives."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path


@contextmanager
def exclusive_folder(root: Path) -> Iterator[Path]:
    """The first of the folders `root/1`, `root/2` ... that no living process has, emptied.

    Raises:
        OSError: it cannot be made, or what a dead process left in it cannot be removed.
    """
    for number in count(1):
        folder = root / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            # The kernel drops it with the process, however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            for left in folder.iterdir():
                shutil.rmtree(left)
            yield folder
        finally:
            os.close(lock)
        return
