"""Polls the status of TorchServe, so that no request has to wait for its response."""

import asyncio

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.concurrency import run_periodically
from orchestrator.errors import ModelServerError
from orchestrator.serving.management import ALL_PATH, DEFAULT_PATH, Descriptions, RegisteredVersion
from orchestrator.serving.status import LoadedVersion, ModelStatus
from orchestrator.serving.tokens import Tokens, is_key_rejection
from orchestrator.settings import Settings

WATCH_INTERVAL_S = 1.0
POLL_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
MODEL_INFO = "musiclab_model_info"
INFO_LABELS = ("device", "codec", "checkpoint")


class ModelWatcher:
    """Polls TorchServe every second and keeps its latest status."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, tokens: Tokens) -> None:
        self.status = ModelStatus(ready=False, reason="the model server has not been polled yet")
        self._session = session
        self._tokens = tokens
        self._management = settings.management_url
        self._metrics = settings.model_metrics_url
        self._labels: dict[str, dict[str, str]] = {}
        self._polled = asyncio.Condition()

    async def run(self) -> None:
        """Polls until cancelled."""
        failure = "invalid response from the model server"
        await run_periodically(self._poll, WATCH_INTERVAL_S, failure)

    async def _poll(self) -> None:
        try:
            self.status = await self._fetch_status()
        except Exception:
            self.status = ModelStatus(ready=False, reason="invalid response from the model server")
            raise
        finally:
            async with self._polled:
                self._polled.notify_all()

    async def next_poll(self) -> None:
        """Waits for the end of the next poll, whether or not the status has changed."""
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
            return ModelStatus(ready=False, reason="the model server is unreachable")
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

    async def _describe(self, path: str) -> Descriptions:
        """Returns TorchServe's description of the versions at a path; empty if it has none.

        Raises:
            ModelServerError: TorchServe rejects every available key.
        """
        async with self._session.get(
            self._management + path,
            middlewares=[self._tokens.middleware("management")],
            timeout=POLL_TIMEOUT,
        ) as response:
            if is_key_rejection(response.status, await response.read()):
                raise ModelServerError("the model server rejects the available key")
            if response.status != 200:
                return []
            described: Descriptions = await response.json()
            return described

    async def _labels_of(self, ready: set[str]) -> dict[str, dict[str, str]]:
        """Returns the metadata of each ready version; fetched when a version becomes ready."""
        known = {version: labels for version, labels in self._labels.items() if version in ready}
        if known.keys() != ready:
            async with self._session.get(self._metrics, timeout=POLL_TIMEOUT) as response:
                labels = _model_info(await response.text())
            known = {version: labels[version] for version in ready & labels.keys()}
        self._labels = known
        return known


def _model_info(metrics: str) -> dict[str, dict[str, str]]:
    """Returns, by version, the labels of the gauge in which the handler reports its metadata."""
    return {
        sample.labels["model_version"]: {name: sample.labels[name] for name in INFO_LABELS}
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == MODEL_INFO
    }
