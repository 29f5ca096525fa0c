"""Client of TorchServe's inference API, which generates the music of a job."""

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

# How long to wait for the response once all, or some, of the workers that may hold the request have
# exited.
ALL_LOST_TIMEOUT_S = 2.0
SOME_LOST_TIMEOUT_S = 30.0

# Error types of requests that TorchServe has not passed to a worker: the key is invalid, or the
# version is not loaded, has no worker, or has a full queue (the last two have the same type).
NOT_STARTED_TYPES = {
    "InvalidKeyException",
    "ModelNotFoundException",
    "ModelVersionNotFoundException",
    "ServiceUnavailableException",
}

log = structlog.get_logger()


@dataclass(frozen=True)
class InferenceClient:
    """Sends inference requests to TorchServe.

    Attributes:
        url: base URL of the inference API, without a trailing slash.
        watcher: polls the same TorchServe.
    """

    session: aiohttp.ClientSession
    url: str
    tokens: Tokens
    watcher: ModelWatcher

    async def generate(self, version: str, track1: bytes, track2: bytes, job_id: str) -> bytes:
        """Generates music from the WAV files of both windows; returns a WAV file.

        The TorchServe worker logs the job ID.

        Raises:
            ModelRejectedInputError: the model rejected a track; a retry would fail as well.
            InferenceNotStartedError: no worker accepted the request.
            ModelUnavailableError: a worker may have accepted the request but returned no music.
        """
        form = aiohttp.FormData()
        for name, wav in (("track1", track1), ("track2", track2)):
            form.add_field(name, wav, filename=f"{name}.wav", content_type="audio/wav")
        try:
            async with (
                self._response_deadline(version),
                self.session.post(
                    f"{self.url}/predictions/{MODEL_NAME}/{version}",
                    data=form,
                    headers={"X-Job-Id": job_id},
                    middlewares=[self.tokens.middleware("inference")],
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                ) as response,
            ):
                body = await response.read()
        # Hosts and ports go to the log only: every client can read the job's status.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            log.warning("the model server is unreachable", reason=str(error))
            raise InferenceNotStartedError("the model server is unreachable") from error
        except aiohttp.ClientError as error:
            log.warning("the connection to the model server was lost", reason=str(error))
            raise ModelUnavailableError("the connection to the model server was lost") from error
        except TimeoutError:
            raise ModelUnavailableError(
                "the model server did not respond; its worker may have exited during the request"
            ) from None
        if response.status == 200:
            return body
        # Errors from the handler have a string as `code`; errors from TorchServe have a number.
        document = _json(body)
        if 400 <= response.status < 500 and isinstance(document.get("code"), str):
            raise ModelRejectedInputError(document["code"], str(document.get("detail")))
        reason = document.get("message") or document.get("detail") or "no details"
        message = f"the model server returned {response.status}: {reason}"
        if document.get("type") in NOT_STARTED_TYPES:
            raise InferenceNotStartedError(message)
        raise ModelUnavailableError(message)

    @asynccontextmanager
    async def _response_deadline(self, version: str) -> AsyncIterator[None]:
        """Limits the time of a request; shortens the limit once workers that may hold it exit.

        TorchServe may never answer a request whose worker was killed: it keeps the connection open,
        and its response timeout does not apply.

        Raises:
            TimeoutError: the request took too long.
        """
        async with asyncio.timeout(INFERENCE_TIMEOUT_S) as deadline:
            adjusting = asyncio.create_task(self._adjust_deadline(version, deadline))
            try:
                yield
            finally:
                adjusting.cancel()

    async def _adjust_deadline(self, version: str, deadline: asyncio.Timeout) -> None:
        """Reschedules the deadline of a request just sent, as workers exit and start.

        TorchServe does not report which worker holds the request. The candidates are the workers
        that were READY when it was sent. The poll before that moment may list a worker that has
        already exited; the poll after it may miss one that has exited since. The candidates
        therefore include the workers of both: if a worker was replaced in between, one of the two
        is still present, and a healthy request keeps enough time. The first poll to finish may have
        started before the request was sent, so the first two are included. If no worker was READY,
        the request waits in TorchServe's queue for the first one that becomes READY.
        """
        latest, candidates, timeout_s = deadline.when(), self._workers(version), INFERENCE_TIMEOUT_S
        assert latest is not None  # noqa: S101 - for mypy
        for poll in itertools.count(1):
            await self.watcher.next_poll()
            present = self._workers(version)
            if poll <= 2 or not candidates:
                candidates |= present
            before = timeout_s
            if candidates <= present:
                timeout_s = INFERENCE_TIMEOUT_S
            else:
                timeout_s = SOME_LOST_TIMEOUT_S if candidates & present else ALL_LOST_TIMEOUT_S
            if timeout_s != before:
                now = asyncio.get_running_loop().time()
                deadline.reschedule(min(latest, now + timeout_s))

    def _workers(self, version: str) -> frozenset[int]:
        loaded = self.watcher.status.find(version)
        return loaded.worker_pids if loaded else frozenset()


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
