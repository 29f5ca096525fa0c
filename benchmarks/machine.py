"""Describes the machine, without its host name, and measures the resource usage of processes.

Requires Linux, because it reads /proc.
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
# Instruction sets that determine the speed of matrix multiplication.
MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe() -> dict[str, str]:
    """Describe the hardware and software that affect the figures."""
    cpu = Path("/proc/cpuinfo").read_text()
    flags = _field(cpu, "flags").split()
    return {
        "CPU": _field(cpu, "model name"),
        "instruction sets": ", ".join(flag for flag in MATRIX_FLAGS if flag in flags),
        "cores": f"{psutil.cpu_count(logical=False)}, {torch.get_num_threads()} threads",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "OS": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.machine()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
    }


class OtherCpuUsage:
    """Measures the share of the machine's CPU time that other processes use, from construction on.

    Args:
        ours: process ids of the benchmarked processes, in addition to this process. They must not
            exit before the last call of share().
    """

    def __init__(self, ours: Iterable[int]) -> None:
        self._ours = [psutil.Process(), *map(psutil.Process, ours)]
        self._began = self._spent()

    def share(self) -> float:
        """Return the fraction of the CPU time of all cores that other processes used."""
        total, busy, own = (
            now - then for now, then in zip(self._spent(), self._began, strict=True)
        )
        return max(0.0, (busy - own) / total)

    def _spent(self) -> tuple[float, float, float]:
        """Return the CPU-seconds of all cores: elapsed, busy, and used by our processes.

        The last includes child processes that have exited. Time stolen by the host of a virtual
        machine counts as busy.
        """
        cores = psutil.cpu_times()
        idle = cores.idle + cores.iowait
        busy = cores.user + cores.nice + cores.system + cores.irq + cores.softirq + cores.steal
        own = sum(sum(process.cpu_times()[:4]) for process in self._ours)
        return idle + busy, busy, own


def peak_bytes(pid: int) -> int:
    """Return the peak resident memory of a process."""
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
