"""What serves, watched; and the inference API, which jobs are sent to."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import aiohttp
import structlog
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.archives.packing import MODEL_NAME
from orchestrator.concurrency import run_periodically
from orchestrator.errors import (
    InferenceNotStartedError,
    ModelRejectedInputError,
    ModelUnavailableError,
)
from orchestrator.serving.management import ALL_PATH, DEFAULT_PATH, Described, RegisteredVersion
from orchestrator.serving.tokens import Tokens, is_refusal
from orchestrator.settings import Settings

TIMEOUT_S = 5.0
INFERENCE_TIMEOUT_S = 600.0
WATCH_INTERVAL_S = 1.0
MODEL_INFO = "musiclab_model_info"
INFO_LABELS = ("device", "codec", "checkpoint")
LOOK_TIMEOUT = aiohttp.ClientTimeout(total=TIMEOUT_S)

# How long a request may still be answered when all workers that may have it are gone, or some are.
NONE_LEFT_S = 2.0
SOME_LEFT_S = 30.0

# What TorchServe says when it has handed a request to no worker: it knows no key that is here, the
# version is not loaded, it has no worker, or the queue is full (the same words as without one).
NOT_TAKEN = {
    "InvalidKeyException",
    "ModelNotFoundException",
    "ModelVersionNotFoundException",
    "ServiceUnavailableException",
}

log = structlog.get_logger()


@dataclass(frozen=True)
class LoadedVersion:
    """One version of the model in TorchServe, and what its handler says of itself.

    Attributes:
        default, workers, ready, worker_pids, batch_size: as in RegisteredVersion.
        device: "cpu", or "cuda0" and so on; None while no worker is READY.
        codec: "official" or "starter".
        checkpoint: "trained" or "starter".
    """

    version: str
    default: bool
    workers: int
    ready: int
    device: str | None = None
    codec: str | None = None
    checkpoint: str | None = None
    worker_pids: frozenset[int] = frozenset()
    batch_size: int = 1


@dataclass(frozen=True)
class ModelStatus:
    """What serves.

    Attributes:
        ready: whether the default version has a READY worker.
        reason: why it has none; empty when `ready`.
        version, device, codec, checkpoint: of the default version, when `ready`.
        versions: all that are loaded, ready or not.
    """

    ready: bool
    reason: str = ""
    version: str | None = None
    device: str | None = None
    codec: str | None = None
    checkpoint: str | None = None
    versions: tuple[LoadedVersion, ...] = ()

    @property
    def capacity(self) -> int:
        """Requests that the default version works on at once, or 1 while it is not ready."""
        working = (each.ready * each.batch_size for each in self.versions if each.default)
        return next(working, 0) or 1

    def find(self, version: str) -> LoadedVersion | None:
        """A loaded version; None if it is not there."""
        return next((loaded for loaded in self.versions if loaded.version == version), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object for other hosts, to whom the process ids here mean nothing."""
        document = asdict(self)
        for loaded in document["versions"]:
            del loaded["worker_pids"]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The status of which `to_json` made this, without the process ids."""
        versions = tuple(LoadedVersion(**loaded) for loaded in document["versions"])
        return cls(**document | {"versions": versions})


class ModelWatcher:
    """Looks every second at what serves, so that nobody who asks has to wait for TorchServe."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, tokens: Tokens) -> None:
        self.status = ModelStatus(ready=False, reason="the model server was not asked yet")
        self._session = session
        self._tokens = tokens
        self._management = settings.management_url
        self._metrics = settings.model_metrics_url
        self._labels: dict[str, dict[str, str]] = {}
        self._looked = asyncio.Condition()

    async def run(self) -> None:
        """Watch until cancelled."""
        failure = "the model server's answer was not understood"
        await run_periodically(self._poll, WATCH_INTERVAL_S, failure)

    async def _poll(self) -> None:
        try:
            self.status = await self._look()
        except Exception:
            self.status = ModelStatus(ready=False, reason="its answer was not understood")
            raise
        finally:
            async with self._looked:
                self._looked.notify_all()

    async def changed(self) -> None:
        """Wait for the end of the next look, whether it finds a change or not."""
        async with self._looked:
            await self._looked.wait()

    async def _look(self) -> ModelStatus:
        try:
            default = await self._describe(DEFAULT_PATH)
            registered = RegisteredVersion.read(default, await self._describe(ALL_PATH))
            if not registered:
                return ModelStatus(ready=False, reason="the model server has no model yet")
            labels = await self._labels_of({each.version for each in registered if each.ready})
        except (aiohttp.ClientError, TimeoutError):
            return ModelStatus(ready=False, reason="the model server does not answer")
        except InferenceNotStartedError as error:
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
            InferenceNotStartedError: it takes none of the keys that are to be had.
        """
        async with self._session.get(
            self._management + path,
            middlewares=[self._tokens.middleware("management")],
            timeout=LOOK_TIMEOUT,
        ) as response:
            if is_refusal(response.status, await response.read()):
                raise InferenceNotStartedError("the model server refuses the key that is here")
            if response.status != 200:
                return []
            described: Described = await response.json()
            return described

    async def _labels_of(self, ready: set[str]) -> dict[str, dict[str, str]]:
        """What each ready version's handler says of itself; asked for when one becomes ready."""
        known = {version: said for version, said in self._labels.items() if version in ready}
        if known.keys() != ready:
            async with self._session.get(self._metrics, timeout=LOOK_TIMEOUT) as response:
                said = _model_info(await response.text())
            known = {version: said[version] for version in ready & said.keys()}
        self._labels = known
        return known


@dataclass(frozen=True)
class InferenceClient:
    """Asks the model for music.

    Attributes:
        url: of the inference API, without a slash at its end.
        watch: looks at the same TorchServe.
    """

    session: aiohttp.ClientSession
    url: str
    tokens: Tokens
    watch: ModelWatcher

    async def generate(self, version: str, track1: bytes, track2: bytes, job_id: str) -> bytes:
        """A WAV file of the new music from the WAV files of both windows.

        The job's id is for the log of the model's worker.

        Raises:
            ModelRejectedInputError: the model finds a track at fault, and would again.
            InferenceNotStartedError: no worker took the request.
            ModelUnavailableError: a worker had it, or may have, and nothing came of it.
        """
        form = aiohttp.FormData()
        for name, wav in (("track1", track1), ("track2", track2)):
            form.add_field(name, wav, filename=f"{name}.wav", content_type="audio/wav")
        try:
            async with (
                self._while_it_may_be_answered(version),
                self.session.post(
                    f"{self.url}/predictions/{MODEL_NAME}/{version}",
                    data=form,
                    headers={"X-Job-Id": job_id},
                    middlewares=[self.tokens.middleware("inference")],
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S),
                ) as response,
            ):
                body = await response.read()
        # Why, as in hosts and ports, is for the log: the job's status tells the rest to everybody.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            log.warning("the model server cannot be reached", reason=str(error))
            raise InferenceNotStartedError("the model server cannot be reached") from error
        except aiohttp.ClientError as error:
            log.warning("the model server broke off", reason=str(error))
            raise ModelUnavailableError("the model server broke off") from error
        except TimeoutError:
            raise ModelUnavailableError(
                "the model server gave no answer, as when a worker dies at work"
            ) from None
        if response.status == 200:
            return body
        # The handler's own refusals name a code in words; TorchServe's have a number there.
        refusal = _json(body)
        if 400 <= response.status < 500 and isinstance(refusal.get("code"), str):
            raise ModelRejectedInputError(refusal["code"], str(refusal.get("detail")))
        said = refusal.get("message") or refusal.get("detail") or "nothing else"
        sentence = f"the model server answered {response.status}: {said}"
        if refusal.get("type") in NOT_TAKEN:
            raise InferenceNotStartedError(sentence)
        raise ModelUnavailableError(sentence)

    @asynccontextmanager
    async def _while_it_may_be_answered(self, version: str) -> AsyncIterator[None]:
        """Time for one request to a version; less once workers that may have it are gone.

        A request whose worker is killed may never be answered: TorchServe keeps the connection
        open, and its response timeout does not end it.

        Raises:
            TimeoutError: it took too long.
        """
        async with asyncio.timeout(INFERENCE_TIMEOUT_S) as deadline:
            following = asyncio.create_task(self._follow(version, deadline))
            try:
                yield
            finally:
                following.cancel()

    async def _follow(self, version: str, deadline: asyncio.Timeout) -> None:
        """Move the deadline of a request, sent just now, as its workers come and go.

        Which worker has the request is not known, only which ones may: those READY when it was
        sent. As the watch knows of a moment before (it may name one that was dead by then) and of
        a moment after (it may lack one that has died since), both are noted. So where a worker was
        replaced in between, one of the two is left, and a request that is well has time. The first
        look to end may have begun before the sending, hence two. If no worker was READY by then,
        the request waits in TorchServe's queue for the first that will be.
        """
        latest, noted, patience = deadline.when(), self._workers(version), INFERENCE_TIMEOUT_S
        assert latest is not None  # noqa: S101 - for mypy
        for look in itertools.count(1):
            await self.watch.changed()
            present = self._workers(version)
            if look <= 2 or not noted:
                noted |= present
            before = patience
            if noted <= present:
                patience = INFERENCE_TIMEOUT_S
            else:
                patience = SOME_LEFT_S if noted & present else NONE_LEFT_S
            if patience != before:
                now = asyncio.get_running_loop().time()
                deadline.reschedule(min(latest, now + patience))

    def _workers(self, version: str) -> frozenset[int]:
        loaded = self.watch.status.find(version)
        return loaded.worker_pids if loaded else frozenset()


def _model_info(metrics: str) -> dict[str, dict[str, str]]:
    """By version, the labels of the gauge in which the handler says what it serves, and where."""
    return {
        sample.labels["model_version"]: {name: sample.labels[name] for name in INFO_LABELS}
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == MODEL_INFO
    }


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
