"""EnCodec's network is imported without torchaudio, and other modules are not affected."""

import subprocess
import sys
from pathlib import Path

import torch

from handlers.codec import encodec_network

ROOT = Path(__file__).parents[4]


def words_printed_by(script: str) -> list[str]:
    """The words that `script` prints in a new interpreter."""
    command = [sys.executable, "-W", "error", "-c", script]
    completed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return completed.stdout.split()


def test_the_torchaudio_placeholder_is_removed_after_the_import() -> None:
    script = "import sys, handlers.codec.encodec_network\nprint(*sys.modules)"
    names = words_printed_by(script)
    assert "encodec" in names
    assert "torchaudio" not in names


def test_a_torchaudio_already_imported_is_kept() -> None:
    script = (
        "import sys, types\n"
        "mine = sys.modules['torchaudio'] = types.ModuleType('torchaudio')\n"
        "import handlers.codec.encodec_network\n"
        "print(sys.modules['torchaudio'] is mine)"
    )
    assert words_printed_by(script) == ["True"]


def test_the_network_has_the_structure_of_the_24_khz_model() -> None:
    network = encodec_network.build()
    assert network.sample_rate == encodec_network.SAMPLE_RATE == 24_000
    assert network.bandwidth == encodec_network.BANDWIDTH_KBPS
    assert not network.training
    with torch.inference_mode():
        latent = network.encoder(torch.zeros(1, 1, 10 * encodec_network.HOP))
        assert latent.shape == (1, encodec_network.LATENT_DIM, 10)
        assert network.decoder(latent).shape == (1, 1, 10 * encodec_network.HOP)


def test_folding_the_norms_does_not_change_the_output() -> None:
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
