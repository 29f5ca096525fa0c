"""The output of the canary job is checked."""

import numpy as np
import pytest

from orchestrator.errors import DeploymentError
from orchestrator.releases.canary import check_output
from tests.support.signals import RATE, SEGMENT, encoded, noise, tones


def test_the_loudness_of_the_output_is_returned() -> None:
    sound = tones(SEGMENT, 440.0)
    assert check_output(encoded(sound), "v") == pytest.approx(np.sqrt((sound**2).mean()), rel=1e-3)


@pytest.mark.parametrize(
    ("response", "explanation"),
    [
        pytest.param(b"", "no valid WAV", id="empty"),
        pytest.param(b'{"detail": "no"}', "no valid WAV", id="JSON"),
        pytest.param(encoded(noise(SEGMENT, 1) * 1e-4), "silence from two plucked", id="silence"),
        pytest.param(encoded(np.full(SEGMENT, 0.5)), "silence from two plucked", id="DC offset"),
        pytest.param(encoded(np.sign(noise(SEGMENT, 1))), "nothing but clipped", id="clipped"),
        pytest.param(encoded(noise(SEGMENT - 1, 1)), "383999 frames", id="too short"),
        pytest.param(encoded(noise(SEGMENT, 1), subtype="PCM_U8"), "of 8 bits", id="8 bits"),
        pytest.param(encoded(noise(SEGMENT, 1), rate=2 * RATE), "48000 Hz", id="other rate"),
    ],
)
def test_unusable_output_is_rejected(response: bytes, explanation: str) -> None:
    with pytest.raises(DeploymentError, match=explanation):
        check_output(response, "v")
