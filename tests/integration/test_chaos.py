"""A short version of `make chaos`: killing services loses no accepted job."""

from pathlib import Path

import pytest

from orchestrator.settings import Settings
from tests.system.chaos.run import run
from tests.system.chaos.systems import SYSTEMS

KILLS = {"postgresql": 2, "sqlite": 1}
SEED = 7  # kills a worker, then the API


@pytest.mark.parametrize("backend", sorted(SYSTEMS))
def test_accepted_jobs_are_never_lost(backend: str, packed: Settings, tmp_path: Path) -> None:
    report = run(backend, KILLS[backend], SEED, packed, tmp_path)
    assert report.violations == [], f"see {tmp_path}"
    assert report.figures["accepted"]
