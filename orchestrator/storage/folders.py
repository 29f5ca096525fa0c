"""Blocking helpers for job directories."""

import errno
import shutil
from contextlib import suppress
from pathlib import Path

from orchestrator.storage.base import job_ids_of


def unlink_files(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Deletes a directory, even if other processes add or delete files in it at the same time."""
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def file_names(folder: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return set()


def job_ids_in(root: Path) -> set[str]:
    return job_ids_of(file_names(root))
