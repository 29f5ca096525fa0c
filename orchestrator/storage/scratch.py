"""A folder that a process has to itself for as long as it lives."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from orchestrator.filesystem import lock


@contextmanager
def exclusive_folder(root: Path) -> Iterator[Path]:
    """The first of the folders `root/1`, `root/2` ... that no living process has, emptied.

    Raises:
        OSError: it cannot be made, or what a dead process left in it cannot be removed.
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
