"""`python -m tests.system.swaps --deploys 10 --bare 10 --clients 8`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.service import Service, running
from tests.support.settings import settings_in
from tests.support.versions import pack_two
from tests.system.swaps.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.swaps")
    parser.add_argument("--deploys", type=int, default=10)
    parser.add_argument("--bare", type=int, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--jobs-between", type=int, default=3, help="jobs between two swaps")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="musiclab-swaps-") as folder:
        limits = {"rate_limit": 0, "reuse_results": False}
        settings = settings_in(Path(folder)).model_copy(update=limits)
        pack_two(settings)
        with running(settings, "up"):
            report = run(Service(settings), **vars(arguments))
    report.show()
    return 1 if report.load.failures else 0


sys.exit(main())
