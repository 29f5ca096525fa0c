"""The canary job: one request to a version before users get it, and a check of its output."""

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
CLIPPING_RMS = 0.9  # a sine of full scale has 0.7


def run_canary(url: str, tokens: Tokens, version: str) -> float:
    """Send a version two plucked chords as the tracks, and check the music that it returns.

    Args:
        url: TorchServe's inference API.
        tokens: TorchServe's.
        version: registered and ready.

    Returns:
        Root mean square of the music, 1 being full scale.

    Raises:
        DeploymentError: it returned none, or music that `check_output` refuses.
    """
    files = {
        f"track{track}": (f"track{track}.wav", _wav(chord), "audio/wav")
        for track, chord in enumerate(CHORDS, start=1)
    }
    try:
        answer = requests.post(
            f"{url}/predictions/{MODEL_NAME}/{version}",
            files=files,
            auth=tokens.auth("inference"),
            timeout=TIMEOUT_S,
        )
    except requests.RequestException as error:
        raise DeploymentError(
            f"version {version} gave the canary job no answer ({error})"
        ) from error
    if not answer.ok:
        raise DeploymentError(
            f"version {version} answered the canary job with {answer.status_code}: "
            f"{_error_detail(answer)}"
        )
    return check_output(answer.content, version)


def check_output(wav: bytes, version: str) -> float:
    """The root mean square of a WAV around its mean, 1 being full scale.

    Raises:
        DeploymentError: it has another format, is silent, or has almost only clipped samples.
    """
    try:
        with wave.open(io.BytesIO(wav)) as file:
            rate, channels = file.getframerate(), file.getnchannels()
            bits = 8 * file.getsampwidth()
            frames = file.getnframes()
            content = file.readframes(frames)
    except (wave.Error, EOFError) as error:
        raise DeploymentError(
            f"version {version} answered the canary job with what is no WAV ({error})"
        ) from error
    if (frames, rate, channels, bits) != (SAMPLES, RATE, 1, 16):
        raise DeploymentError(
            f"version {version} made {frames} frames at {rate} Hz with {channels} channels of "
            f"{bits} bits; right are {SAMPLES} at {RATE} Hz with 1 channel of 16 bits"
        )
    samples = array("h", content)
    mean = sum(samples) / SAMPLES  # an offset is inaudible
    rms = math.sqrt(sum((sample - mean) ** 2 for sample in samples) / SAMPLES) / FULL_SCALE
    if not SILENCE_RMS < rms < CLIPPING_RMS:
        what = "silence" if rms <= SILENCE_RMS else "nothing but clipped samples"
        raise DeploymentError(
            f"version {version} makes {what} of two plucked chords: the root mean square is "
            f"{rms:.1g} of full scale, and should be between {SILENCE_RMS:g} and {CLIPPING_RMS:g}"
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
    """A chord, plucked PLUCKS_PER_S times a second; each pluck decays."""
    period = RATE // PLUCKS_PER_S
    pluck = [
        math.exp(-4 * n / period)
        * sum(math.sin(2 * math.pi * hertz * n / RATE) for hertz in chord)
        / (2 * len(chord))
        for n in range(period)
    ]
    return array("h", (round((FULL_SCALE - 1) * value) for value in pluck)) * (SAMPLES // period)


def _error_detail(answer: requests.Response) -> str:
    try:
        content = answer.json()
        return str(content.get("detail") or content["message"])
    except (ValueError, KeyError, AttributeError):
        return answer.text[:200] or "nothing else"
