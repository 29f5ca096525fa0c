"""The inference API of TorchServe, which makes the music of jobs."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog

from orchestrator.archives.archive import MODEL_NAME
from orchestrator.errors import (
    InferenceNotStartedError,
    ModelRejectedInputError,
    ModelUnavailableError,
)
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.watcher import ModelWatcher

CONNECT_TIMEOUT_S = 5.0
INFERENCE_TIMEOUT_S = 600.0

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
class InferenceClient:
    """Asks the model for music.

    Attributes:
        url: of the inference API, without a slash at its end.
        watcher: looks at the same TorchServe.
    """

    session: aiohttp.ClientSession
    url: str
    tokens: Tokens
    watcher: ModelWatcher

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
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
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
        reason = refusal.get("message") or refusal.get("detail") or "nothing else"
        sentence = f"the model server answered {response.status}: {reason}"
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
            await self.watcher.next_poll()
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
        loaded = self.watcher.status.find(version)
        return loaded.worker_pids if loaded else frozenset()


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
