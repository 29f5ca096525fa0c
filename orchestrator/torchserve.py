"""Clients of TorchServe: the inference API for jobs, the management API for what serves."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
import structlog
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.model_versions import MODEL_NAME
from orchestrator.settings import Settings

TIMEOUT_S = 5.0
INFERENCE_TIMEOUT_S = 600.0
WATCH_INTERVAL_S = 1.0
MODEL_INFO = "musiclab_model_info"

log = structlog.get_logger()


@dataclass(frozen=True)
class Keys:
    """The keys in TorchServe's key_file.json; read at each use, as each start makes new ones."""

    file: Path

    def header(self, kind: str) -> dict[str, str]:
        """The authorization header; none while the file is not written."""
        try:
            key = json.loads(self.file.read_text())[kind]["key"]
        except (FileNotFoundError, ValueError):
            return {}
        return {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True)
class ManagementClient:
    """Calls the management API.

    Attributes:
        url: its address, without a slash at its end.
    """

    url: str
    keys: Keys

    def describe(self, name: str, version: str) -> dict[str, Any] | None:
        """The description of one version, with its workers; None while it is not registered.

        Raises:
            requests.RequestException: the server is away or answers otherwise.
        """
        response = requests.get(
            f"{self.url}/models/{name}/{version}",
            headers=self.keys.header("management"),
            timeout=TIMEOUT_S,
        )
        if response.status_code == requests.codes.not_found:
            return None
        response.raise_for_status()
        description: dict[str, Any] = response.json()[0]
        return description


@dataclass(frozen=True)
class InferenceClient:
    """Asks the model for music."""

    session: aiohttp.ClientSession
    url: str
    keys: Keys

    async def generate(self, track1: bytes, track2: bytes) -> bytes:
        """A WAV file of the new music from the WAV files of both windows.

        Raises:
            ModelRefusedError: the model finds a track at fault, and would again.
            ModelUnavailableError: it is away, busy or broken, and may be back.
        """
        form = aiohttp.FormData()
        for name, wav in (("track1", track1), ("track2", track2)):
            form.add_field(name, wav, filename=f"{name}.wav", content_type="audio/wav")
        try:
            async with self.session.post(
                f"{self.url}/predictions/{MODEL_NAME}",
                data=form,
                headers=self.keys.header("inference"),
                timeout=aiohttp.ClientTimeout(total=INFERENCE_TIMEOUT_S),
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ModelUnavailableError(f"the model server does not answer: {error}") from error
        if response.status == 200:
            return body
        # The handler's own refusals name a code in words; TorchServe's have a number there, as for
        # a key that a restart has replaced.
        refusal = _json(body)
        if 400 <= response.status < 500 and isinstance(refusal.get("code"), str):
            raise ModelRefusedError(refusal["code"], str(refusal.get("detail")))
        raise ModelUnavailableError(f"the model server answered {response.status}")


@dataclass(frozen=True)
class ModelStatus:
    """What serves.

    Attributes:
        reason: why nothing is ready; empty when `ready`.
        version: of the model's default version.
        device: "cpu", or "cuda0" and so on.
        codec: "official" or "starter".
        checkpoint: "trained" or "starter".
    """

    ready: bool
    reason: str = ""
    version: str | None = None
    device: str | None = None
    codec: str | None = None
    checkpoint: str | None = None


class ModelWatch:
    """Looks every second at what serves, so that nobody who asks has to wait for TorchServe."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, keys: Keys) -> None:
        self.status = ModelStatus(ready=False, reason="the model server was not asked yet")
        self._session = session
        self._keys = keys
        self._management = f"http://127.0.0.1:{settings.management_port}"
        self._metrics = f"http://127.0.0.1:{settings.metrics_port}/metrics"

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                self.status = await self._look()
            except Exception:
                log.exception("the model server's answer was not understood")
                self.status = ModelStatus(ready=False, reason="its answer was not understood")
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _look(self) -> ModelStatus:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.get(
                f"{self._management}/models/{MODEL_NAME}",
                headers=self._keys.header("management"),
                timeout=timeout,
            ) as response:
                if response.status != 200:
                    return ModelStatus(ready=False, reason="the model server has no model yet")
                model = (await response.json())[0]
            if not any(worker["status"] == "READY" for worker in model["workers"]):
                return ModelStatus(ready=False, reason="the model is loading")
            if self.status.ready and self.status.version == model["modelVersion"]:
                return self.status
            async with self._session.get(self._metrics, timeout=timeout) as response:
                labels = _model_info(await response.text(), model["modelVersion"])
        except (aiohttp.ClientError, TimeoutError):
            return ModelStatus(ready=False, reason="the model server does not answer")
        return ModelStatus(
            ready=True,
            version=model["modelVersion"],
            device=labels.get("device"),
            codec=labels.get("codec"),
            checkpoint=labels.get("checkpoint"),
        )


def _model_info(metrics: str, version: str) -> dict[str, str]:
    """The labels of the gauge in which the handler says what it serves, and where."""
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == MODEL_INFO and sample.labels["model_version"] == version:
                return dict(sample.labels)
    return {}


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
