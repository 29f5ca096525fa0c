"""Compiled kernels are reused by the next worker, although its code is in another directory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.codec.compiled import ContentHashCacheLocator
from tests.support.project import PROJECT

pytestmark = pytest.mark.slow

SCRIPT = """
import torch
from handlers.codec.elu import KERNELS, elu

elu(torch.zeros(1, 8, 4), None, 0, "zeros")
print(sum(KERNELS[torch.float32].stats.cache_hits.values()))
"""


def cache_hits(code: Path, cache: Path) -> int:
    """The number of kernels that a process running this copy of the code loads from the cache."""
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=code,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(code)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(completed.stdout)


def copy_code(target: Path) -> Path:
    shutil.copytree(PROJECT / "handlers", target / "handlers")
    return target


def test_compiled_kernels_are_reused_until_the_code_changes(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert cache_hits(copy_code(tmp_path / "first"), cache) == 0
    second = copy_code(tmp_path / "second")
    assert cache_hits(second, cache) == 1
    (entry,) = cache.iterdir()
    source = second / "handlers" / "codec" / "elu.py"
    assert ContentHashCacheLocator.get_suitable_cache_subpath(str(source)) == entry.name
    source.write_text(source.read_text() + "# changed\n")
    assert ContentHashCacheLocator.get_suitable_cache_subpath(str(source)) != entry.name
