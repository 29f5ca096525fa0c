"""`python -m tests.system.contract_fuzz --max-examples 3200 --seed 1`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.settings import settings_in
from tests.system.contract_fuzz.fuzzer import Fuzzer, unlimited_service


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.contract_fuzz",
        description="Check the responses of a running MusicLab against its contract.",
    )
    parser.add_argument("--max-examples", type=int, default=3200, help="requests to send")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with unlimited_service(settings_in(folder)) as service:
            report = Fuzzer(service, folder).run(arguments.max_examples, arguments.seed)
    for violation in report.violations[:20]:
        print(violation, end="\n\n")
    print(*report.lines(), sep="\n")
    return 1 if report.violations or report.server_errors else 0


sys.exit(main())
