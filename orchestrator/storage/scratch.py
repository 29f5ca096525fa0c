"""A scratch directory that belongs to one process until it exits."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from orchestrator.filesystem import lock


@contextmanager
def exclusive_folder(root: Path) -> Iterator[Path]:
    """Locks and empties the first of `root/1`, `root/2`, ... that no running process uses.

    Raises:
        OSError: the directory cannot be created, or the files of a dead process cannot be deleted.
    """
    for number in count(1):
        folder = root / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if lock(descriptor):
                for left in folder.iterdir():
                    shutil.rmtree(left)
                yield folder
                return
        finally:
            os.close(descriptor)
