"""A short version of tests/system/contract_fuzz; `make fuzz` runs the long one."""

from pathlib import Path

from orchestrator.settings import Settings
from tests.system.contract_fuzz.fuzzer import Fuzzer, unlimited_service

CASES = 100


def test_responses_match_the_contract(packed: Settings, tmp_path: Path) -> None:
    with unlimited_service(packed) as service:
        report = Fuzzer(service, tmp_path).run(CASES, seed_number=1)
    print(*report.lines(), sep="\n")
    assert not report.violations, "\n".join(report.violations[:5])
    assert report.server_errors == 0
    assert report.count("generate", 202) >= CASES / 10, (
        "too few forms were accepted for a meaningful test"
    )
    assert {"completed", "failed"} <= report.states.keys()
