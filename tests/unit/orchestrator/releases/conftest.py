"""A fake TorchServe to which versions are deployed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import filesystem
from orchestrator.releases import deployer as deployer_module
from tests.support.quick_torchserve import QuickTorchServe, quick_torchserve
from tests.support.settings import settings_in


@pytest.fixture
def torchserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickTorchServe]:
    monkeypatch.setattr(deployer_module, "POLL_S", 0.001)
    monkeypatch.setattr(deployer_module, "REGISTRATION_TIMEOUT_S", 0.02)
    monkeypatch.setattr(deployer_module, "LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(filesystem, "POLL_S", 0.002)
    with quick_torchserve(settings_in(tmp_path)) as server:
        yield server
