"""malloc keeps big activations, so that a second encode faults in hardly a page."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# One thread: what each further one keeps in an arena of its own is not the matter here.
SCRIPT = """
import resource
import torch
from handlers import encodec_network, memory

torch.set_num_threads(1)
if {keep}:
    assert memory.keep_activations_in_heap()
encoder = encodec_network.build().encoder
audio = torch.zeros(1, 1, 3 * encodec_network.SAMPLE_RATE)
with torch.inference_mode():
    encoder(audio)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    encoder(audio)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of_a_second_encode(keep: bool) -> int:
    tuned = ("GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="the trap, and mallopt against it, are glibc's",
)
def test_a_second_encode_faults_in_a_tenth_of_the_pages_at_most() -> None:
    assert faults_of_a_second_encode(keep=True) < faults_of_a_second_encode(keep=False) / 10
