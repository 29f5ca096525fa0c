"""`python -m tests.system.chaos --backend sqlite --kills 20 --seed 1`."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.support.settings import settings_in
from tests.system.chaos.run import out, run
from tests.system.chaos.systems import SYSTEMS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.chaos")
    parser.add_argument("--backend", choices=sorted(SYSTEMS), required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the context managers clean up
    folder = Path(tempfile.mkdtemp(prefix="musiclab-chaos-"))
    out.print(f"{arguments.backend}, {arguments.kills} kills, seed {arguments.seed}, in {folder}")
    report = run(arguments.backend, arguments.kills, arguments.seed, settings_in(folder), folder)
    report.show(f"{arguments.backend}, {arguments.kills} kills, seed {arguments.seed}")
    if report.violations:
        out.print(f"Jobs or files were lost or left over; see the logs in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


sys.exit(main())
