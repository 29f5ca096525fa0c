"""What the figures were measured on, without the machine's name, and what processes take of it.

Reads /proc: needs Linux.
"""

import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

PROJECT = Path(__file__).resolve().parent.parent
# Instructions that decide how quickly matrices are multiplied.
TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe() -> dict[str, str]:
    """What a reader has to know of this machine and of what runs on it."""
    cpu = Path("/proc/cpuinfo").read_text()
    flags = _field(cpu, "flags").split()
    return {
        "CPU": _field(cpu, "model name"),
        "of its instructions": ", ".join(flag for flag in TELLING_FLAGS if flag in flags),
        "cores": f"{psutil.cpu_count(logical=False)}, {torch.get_num_threads()} threads",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "OS": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.machine()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
    }


class Elsewhere:
    """What of the machine's CPU time goes to others, from now on.

    Args:
        ours: processes that are measured, beside this one. They have to live on.
    """

    def __init__(self, ours: Iterable[int]) -> None:
        self._ours = [psutil.Process(), *map(psutil.Process, ours)]
        self._began = self._spent()

    def share(self) -> float:
        """The part of the CPU time of all cores that others took, up to 1."""
        whole, busy, own = (
            now - then for now, then in zip(self._spent(), self._began, strict=True)
        )
        return max(0.0, (busy - own) / whole)

    def _spent(self) -> tuple[float, float, float]:
        """CPU-seconds of all cores: that have passed, that were busy, that were ours.

        Ours are also those of children that have ended; busy is also a core that the host of a
        virtual machine took away.
        """
        cores = psutil.cpu_times()
        idle = cores.idle + cores.iowait
        busy = cores.user + cores.nice + cores.system + cores.irq + cores.softirq + cores.steal
        own = sum(sum(process.cpu_times()[:4]) for process in self._ours)
        return idle + busy, busy, own


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    return 1024 * int(_field(Path(f"/proc/{pid}/status").read_text(), "VmHWM").split()[0])


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else "unknown"


def _commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip() or "unknown"
