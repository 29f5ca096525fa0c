"""Watches what a TorchServe serves, so that no request has to wait for its answer."""

import asyncio

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.concurrency import run_periodically
from orchestrator.errors import ModelServerError
from orchestrator.serving.management import ALL_PATH, DEFAULT_PATH, Described, RegisteredVersion
from orchestrator.serving.status import LoadedVersion, ModelStatus
from orchestrator.serving.tokens import Tokens, is_refusal
from orchestrator.settings import Settings

WATCH_INTERVAL_S = 1.0
POLL_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
MODEL_INFO = "musiclab_model_info"
INFO_LABELS = ("device", "codec", "checkpoint")


class ModelWatcher:
    """Looks every second at what serves, so that nobody who asks has to wait for TorchServe."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, tokens: Tokens) -> None:
        self.status = ModelStatus(ready=False, reason="the model server was not asked yet")
        self._session = session
        self._tokens = tokens
        self._management = settings.management_url
        self._metrics = settings.model_metrics_url
        self._labels: dict[str, dict[str, str]] = {}
        self._polled = asyncio.Condition()

    async def run(self) -> None:
        """Watch until cancelled."""
        failure = "the model server's answer was not understood"
        await run_periodically(self._poll, WATCH_INTERVAL_S, failure)

    async def _poll(self) -> None:
        try:
            self.status = await self._fetch_status()
        except Exception:
            self.status = ModelStatus(ready=False, reason="its answer was not understood")
            raise
        finally:
            async with self._polled:
                self._polled.notify_all()

    async def next_poll(self) -> None:
        """Wait for the end of the next look, whether it finds a change or not."""
        async with self._polled:
            await self._polled.wait()

    async def _fetch_status(self) -> ModelStatus:
        try:
            default = await self._describe(DEFAULT_PATH)
            registered = RegisteredVersion.read(default, await self._describe(ALL_PATH))
            if not registered:
                return ModelStatus(ready=False, reason="the model server has no model yet")
            labels = await self._labels_of({each.version for each in registered if each.ready})
        except (aiohttp.ClientError, TimeoutError):
            return ModelStatus(ready=False, reason="the model server does not answer")
        except ModelServerError as error:
            return ModelStatus(ready=False, reason=str(error))
        versions = tuple(
            LoadedVersion(
                version=each.version,
                default=each.default,
                workers=each.workers,
                ready=each.ready,
                worker_pids=each.worker_pids,
                batch_size=each.batch_size,
                **labels.get(each.version, {}),
            )
            for each in registered
        )
        serving = next((each for each in versions if each.default and each.ready), None)
        if serving is None:
            return ModelStatus(ready=False, reason="the model is loading", versions=versions)
        return ModelStatus(
            ready=True,
            version=serving.version,
            device=serving.device,
            codec=serving.codec,
            checkpoint=serving.checkpoint,
            versions=versions,
        )

    async def _describe(self, path: str) -> Described:
        """TorchServe's description of some versions; empty while it knows none.

        Raises:
            ModelServerError: it takes none of the keys that are to be had.
        """
        async with self._session.get(
            self._management + path,
            middlewares=[self._tokens.middleware("management")],
            timeout=POLL_TIMEOUT,
        ) as response:
            if is_refusal(response.status, await response.read()):
                raise ModelServerError("the model server refuses the key that is here")
            if response.status != 200:
                return []
            described: Described = await response.json()
            return described

    async def _labels_of(self, ready: set[str]) -> dict[str, dict[str, str]]:
        """What each ready version's handler says of itself; asked for when one becomes ready."""
        known = {version: labels for version, labels in self._labels.items() if version in ready}
        if known.keys() != ready:
            async with self._session.get(self._metrics, timeout=POLL_TIMEOUT) as response:
                labels = _model_info(await response.text())
            known = {version: labels[version] for version in ready & labels.keys()}
        self._labels = known
        return known


def _model_info(metrics: str) -> dict[str, dict[str, str]]:
    """By version, the labels of the gauge in which the handler says what it serves, and where."""
    return {
        sample.labels["model_version"]: {name: sample.labels[name] for name in INFO_LABELS}
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == MODEL_INFO
    }
