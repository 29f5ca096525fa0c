"""Settings with which TorchServe cannot be started."""

import os
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.serving.process import LONGEST_SOCKET_PATH, SOCKET_NAME, TorchServe
from orchestrator.settings import Settings
from tests.support.quick_torchserve import small_archive


def test_a_run_directory_too_long_for_socket_paths_is_named(
    settings: Settings, tmp_path: Path
) -> None:
    archive = small_archive(settings.model_store, "a")
    longest = LONGEST_SOCKET_PATH - len(f"/model-server/tmp/{SOCKET_NAME}")
    name = "x" * (longest - len(os.fsencode(tmp_path)) - 1)
    fits, too_long = (
        TorchServe(settings.model_copy(update={"run_dir": tmp_path / each}), archive)
        for each in (name, f"{name}x")
    )
    fits._check_path()
    with pytest.raises(SettingsError, match=f"MUSICLAB_RUN_DIR is .*at most {longest} bytes"):
        too_long.start()
