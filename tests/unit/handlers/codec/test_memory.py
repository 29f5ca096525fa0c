"""malloc keeps big activations, so that an encode after the first few faults in hardly a page."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
# 12 s, because glibc learns to keep blocks of up to 32 MB by itself. The fewest of several encodes,
# because the heap grows until it has a place for each block. One thread has one heap.
SCRIPT = """
import resource
import torch
from handlers.codec import encodec_network
from handlers.codec import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.set_num_threads(1)
if {keep}:
    assert memory.keep_activations_in_heap()
encoder = encodec_network.build().encoder
audio = torch.zeros(1, 1, 12 * encodec_network.SAMPLE_RATE)
fewest = float("inf")
with torch.inference_mode():
    for _ in range(5):
        before = faults()
        encoder(audio)
        fewest = min(fewest, faults() - before)
print(fewest)
"""


def repeated_encodes(keep: bool) -> subprocess.Popen[str]:
    """A process that prints the fewest pages that one of several encodes faults in."""
    tuned = ("GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(keep=keep)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="the trap, and mallopt against it, are glibc's",
)
def test_a_repeated_encode_faults_in_less_than_a_tenth_of_the_pages() -> None:
    with repeated_encodes(keep=True) as keeping, repeated_encodes(keep=False) as plain:
        kept, faulted = (int(process.communicate()[0]) for process in (keeping, plain))
    assert kept < faulted / 10
