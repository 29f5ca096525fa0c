"""What one worker compiled, the next one finds, though its code lies elsewhere."""

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


def found(code: Path, kept: Path) -> int:
    """How many compiled kernels a process finds that has this copy of the code."""
    asked = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=code,
        env=os.environ | {"NUMBA_CACHE_DIR": str(kept), "PYTHONPATH": str(code)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(asked.stdout)


def copy(folder: Path) -> Path:
    shutil.copytree(PROJECT / "handlers", folder / "handlers")
    return folder


def test_what_was_compiled_is_found_until_the_code_changes(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert found(copy(tmp_path / "first"), kept) == 0
    second = copy(tmp_path / "second")
    assert found(second, kept) == 1
    (place,) = kept.iterdir()
    source = second / "handlers" / "codec" / "elu.py"
    assert ContentHashCacheLocator.get_suitable_cache_subpath(str(source)) == place.name
    source.write_text(source.read_text() + "# changed\n")
    assert ContentHashCacheLocator.get_suitable_cache_subpath(str(source)) != place.name
