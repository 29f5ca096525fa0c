"""The canary job: sends a new version one request and checks the output before deployment."""

import io
import math
import wave
from array import array

import requests

from orchestrator.archives.archive import MODEL_NAME
from orchestrator.audio.ffmpeg import RATE
from orchestrator.audio.window import SECONDS
from orchestrator.errors import DeploymentError
from orchestrator.serving.tokens import Tokens

TIMEOUT_S = 300.0  # model-config.yaml's responseTimeout
SAMPLES = round(RATE * SECONDS)
FULL_SCALE = 2**15
CHORDS = ((220.0, 277.18, 329.63), (146.83, 174.61, 220.0))  # Hz
PLUCKS_PER_S = 2
SILENCE_RMS = 1e-3  # -60 dB of full scale
CLIPPING_RMS = 0.9  # a full-scale sine has 0.7


def run_canary(url: str, tokens: Tokens, version: str) -> float:
    """Sends two plucked chords to a version as tracks, and checks the generated music.

    Args:
        url: base URL of TorchServe's inference API.
        tokens: TorchServe's keys.
        version: a registered version with a READY worker.

    Returns:
        Root mean square of the music, relative to full scale.

    Raises:
        DeploymentError: the version returned no music, or `check_output` rejected it.
    """
    files = {
        f"track{track}": (f"track{track}.wav", _wav(chord), "audio/wav")
        for track, chord in enumerate(CHORDS, start=1)
    }
    try:
        response = requests.post(
            f"{url}/predictions/{MODEL_NAME}/{version}",
            files=files,
            auth=tokens.auth("inference"),
            timeout=TIMEOUT_S,
        )
    except requests.RequestException as error:
        raise DeploymentError(
            f"version {version} did not respond to the canary job ({error})"
        ) from error
    if not response.ok:
        raise DeploymentError(
            f"version {version} failed the canary job with {response.status_code}: "
            f"{_error_detail(response)}"
        )
    return check_output(response.content, version)


def check_output(wav: bytes, version: str) -> float:
    """Returns the root mean square of a WAV file around its mean, relative to full scale.

    Raises:
        DeploymentError: the format is wrong, the audio is silent, or almost all of it is clipped.
    """
    try:
        with wave.open(io.BytesIO(wav)) as file:
            rate, channels = file.getframerate(), file.getnchannels()
            bits = 8 * file.getsampwidth()
            frames = file.getnframes()
            content = file.readframes(frames)
    except (wave.Error, EOFError) as error:
        raise DeploymentError(
            f"version {version} returned no valid WAV file for the canary job ({error})"
        ) from error
    if (frames, rate, channels, bits) != (SAMPLES, RATE, 1, 16):
        raise DeploymentError(
            f"version {version} returned {frames} frames at {rate} Hz with {channels} channels of "
            f"{bits} bits; expected {SAMPLES} frames at {RATE} Hz with 1 channel of 16 bits"
        )
    samples = array("h", content)
    mean = sum(samples) / SAMPLES  # a DC offset is inaudible
    rms = math.sqrt(sum((sample - mean) ** 2 for sample in samples) / SAMPLES) / FULL_SCALE
    if not SILENCE_RMS < rms < CLIPPING_RMS:
        fault = "silence" if rms <= SILENCE_RMS else "nothing but clipped samples"
        raise DeploymentError(
            f"version {version} generated {fault} from two plucked chords: the root mean square "
            f"is {rms:.1g} of full scale; expected {SILENCE_RMS:g} to {CLIPPING_RMS:g}"
        )
    return rms


def _wav(chord: tuple[float, ...]) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(_plucked(chord).tobytes())
    return content.getvalue()


def _plucked(chord: tuple[float, ...]) -> "array[int]":
    """Returns the samples of a decaying chord, plucked PLUCKS_PER_S times a second."""
    period = RATE // PLUCKS_PER_S
    pluck = [
        math.exp(-4 * n / period)
        * sum(math.sin(2 * math.pi * hertz * n / RATE) for hertz in chord)
        / (2 * len(chord))
        for n in range(period)
    ]
    return array("h", (round((FULL_SCALE - 1) * value) for value in pluck)) * (SAMPLES // period)


def _error_detail(response: requests.Response) -> str:
    try:
        content = response.json()
        return str(content.get("detail") or content["message"])
    except (ValueError, KeyError, AttributeError):
        return response.text[:200] or "no details"
