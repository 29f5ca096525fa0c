"""malloc keeps large activations on the heap, so that repeated encodes cause few page faults."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
# 12 s of audio, because even without the setting glibc keeps blocks of up to 32 MB on the heap. The
# minimum over several encodes, because the heap grows until every block fits. One thread uses one
# heap.
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
    """A process that encodes several times and prints the smallest number of page faults."""
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
    reason="the page faults, and mallopt to avoid them, are specific to glibc",
)
def test_a_repeated_encode_causes_less_than_a_tenth_of_the_page_faults() -> None:
    with (
        repeated_encodes(keep=True) as with_setting,
        repeated_encodes(keep=False) as without_setting,
    ):
        faults_with, faults_without = (
            int(process.communicate()[0]) for process in (with_setting, without_setting)
        )
    assert faults_with < faults_without / 10
