"""A short form of `make chaos`: a kill of each kind of service loses nothing."""

from pathlib import Path

import pytest

from orchestrator.settings import Settings
from tests.system.chaos.run import run
from tests.system.chaos.systems import SYSTEMS

KILLS = {"postgresql": 2, "sqlite": 1}
SEED = 7  # strikes a worker, then the API


@pytest.mark.parametrize("backend", sorted(SYSTEMS))
def test_what_was_accepted_is_never_lost(backend: str, packed: Settings, tmp_path: Path) -> None:
    report = run(backend, KILLS[backend], SEED, packed, tmp_path)
    assert report.faults == [], f"see {tmp_path}"
    assert report.figures["accepted"]
