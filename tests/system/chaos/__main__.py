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
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends all processes
    folder = Path(tempfile.mkdtemp(prefix="musiclab-chaos-"))
    out.print(f"{asked.backend}, {asked.kills} kills, seed {asked.seed}, in {folder}")
    report = run(asked.backend, asked.kills, asked.seed, settings_in(folder), folder)
    report.show(f"{asked.backend}, {asked.kills} kills, seed {asked.seed}")
    if report.faults:
        out.print(f"Something was lost, or too much is there; {folder} is left for a look at it.")
        return 1
    shutil.rmtree(folder)
    return 0


sys.exit(main())
