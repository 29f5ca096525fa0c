"""EnCodec's network is imported without torchaudio, and nobody else notices."""

import subprocess
import sys
from pathlib import Path

import torch

from handlers.codec import encodec_network

ROOT = Path(__file__).parents[4]


def names_in_a_fresh_interpreter(script: str) -> list[str]:
    """What `script` prints, a word each."""
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_no_stand_in_stays_behind() -> None:
    script = "import sys, handlers.codec.encodec_network\nprint(*sys.modules)"
    names = names_in_a_fresh_interpreter(script)
    assert "encodec" in names
    assert "torchaudio" not in names


def test_a_torchaudio_that_is_there_stays() -> None:
    script = (
        "import sys, types\n"
        "mine = sys.modules['torchaudio'] = types.ModuleType('torchaudio')\n"
        "import handlers.codec.encodec_network\n"
        "print(sys.modules['torchaudio'] is mine)"
    )
    assert names_in_a_fresh_interpreter(script) == ["True"]


def test_the_network_has_the_form_of_the_24_khz_model() -> None:
    network = encodec_network.build()
    assert network.sample_rate == encodec_network.SAMPLE_RATE == 24_000
    assert network.bandwidth == encodec_network.BANDWIDTH_KBPS
    assert not network.training
    with torch.inference_mode():
        latent = network.encoder(torch.zeros(1, 1, 10 * encodec_network.HOP))
        assert latent.shape == (1, encodec_network.LATENT_DIM, 10)
        assert network.decoder(latent).shape == (1, 1, 10 * encodec_network.HOP)


def test_folding_the_norms_changes_no_number() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        network = encodec_network.build()
        sound = torch.randn(1, 1, 3200)
    with torch.inference_mode():
        before = network.encoder(sound)
    encodec_network.fold_norms(network)
    assert not any("weight_g" in name for name in network.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(network.encoder(sound), before, rtol=0, atol=1e-6)
