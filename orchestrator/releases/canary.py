"""One request to a version of the model that users do not hear yet, and a look at the answer."""

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
SILENT = 1e-3  # -60 dB of full scale
CLIPPED = 0.9  # a sine of full scale has 0.7


def run_canary(url: str, tokens: Tokens, version: str) -> float:
    """Have a version make music of two plucked chords.

    Args:
        url: TorchServe's inference API.
        tokens: TorchServe's.
        version: registered and ready.

    Returns:
        Root mean square of the music, 1 being full scale.

    Raises:
        DeploymentError: it made none, or what it made cannot be heard.
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
            f"version {version} answered the canary job with {answer.status_code}: {_said(answer)}"
        )
    return check_output(answer.content, version)


def check_output(wav: bytes, version: str) -> float:
    """The root mean square of a WAV of the right form, around its mean.

    Raises:
        DeploymentError: it has another form, is silent, or so loud that only clipping is heard.
    """
    try:
        with wave.open(io.BytesIO(wav)) as file:
            form = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            frames = file.getnframes()
            content = file.readframes(frames)
    except (wave.Error, EOFError) as error:
        raise DeploymentError(
            f"version {version} answered the canary job with what is no WAV ({error})"
        ) from error
    if (frames, *form) != (SAMPLES, RATE, 1, 16):
        raise DeploymentError(
            f"version {version} made {frames} frames at {form[0]} Hz with {form[1]} channels of "
            f"{form[2]} bits; right are {SAMPLES} at {RATE} Hz with 1 channel of 16 bits"
        )
    samples = array("h", content)
    mean = sum(samples) / SAMPLES  # which is not heard
    loudness = math.sqrt(sum((sample - mean) ** 2 for sample in samples) / SAMPLES) / FULL_SCALE
    if not SILENT < loudness < CLIPPED:
        what = "silence" if loudness <= SILENT else "nothing but clipped samples"
        raise DeploymentError(
            f"version {version} makes {what} of two plucked chords: the root mean square is "
            f"{loudness:.1g} of full scale, and should be between {SILENT:g} and {CLIPPED:g}"
        )
    return loudness


def _wav(chord: tuple[float, ...]) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(_plucked(chord).tobytes())
    return content.getvalue()


def _plucked(chord: tuple[float, ...]) -> "array[int]":
    """A chord, plucked again and again; each pluck dies away."""
    period = RATE // PLUCKS_PER_S
    pluck = [
        math.exp(-4 * n / period)
        * sum(math.sin(2 * math.pi * hertz * n / RATE) for hertz in chord)
        / (2 * len(chord))
        for n in range(period)
    ]
    return array("h", (round((FULL_SCALE - 1) * value) for value in pluck)) * (SAMPLES // period)


def _said(answer: requests.Response) -> str:
    try:
        content = answer.json()
        return str(content.get("detail") or content["message"])
    except (ValueError, KeyError, AttributeError):
        return answer.text[:200] or "nothing else"
