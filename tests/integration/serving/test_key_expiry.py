"""Keys that expire within seconds do not affect clients; `make key-test` runs jobs for minutes."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orchestrator.serving.inference import InferenceClient
from orchestrator.serving.management import ManagementClient
from orchestrator.serving.process import TorchServe
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.watcher import ModelWatcher
from tests.support.inference import TRACKS, inference_client
from tests.support.model_client import ModelClient
from tests.support.settings import settings_in
from tests.support.signals import SEGMENT, decoded
from tests.system.key_expiry import with_key_lifetime

LIFETIME_S = 3.0
SECONDS = 4 * LIFETIME_S
PAUSE_S = 0.5  # between two requests of a client, during which keys expire as well


@pytest.fixture(scope="module")
def short_lived(
    tmp_path_factory: pytest.TempPathFactory, starter_archive: Path
) -> Iterator[TorchServe]:
    """A TorchServe whose keys expire after three seconds."""
    settings = settings_in(tmp_path_factory.mktemp("keys"))
    with TorchServe(with_key_lifetime(settings, LIFETIME_S / 60), starter_archive) as server:
        server.wait_ready()
        yield server


async def test_several_clients_keep_working_while_keys_expire(short_lived: TorchServe) -> None:
    """Each client has its own `Tokens`, like a process: none waits for another to renew keys."""
    settings = short_lived.settings
    ends = time.monotonic() + SECONDS

    async def generating(client: InferenceClient) -> int:
        responses = 0
        while time.monotonic() < ends:
            assert len(decoded(await client.generate("starter", *TRACKS, "key-expiry"))) == SEGMENT
            responses += 1
            await asyncio.sleep(PAUSE_S)
        return responses

    async def polling(watch: ModelWatcher) -> None:
        while time.monotonic() < ends:
            await watch.next_poll()
            assert watch.status.ready, watch.status.reason

    def describing() -> None:
        client = ManagementClient(Tokens(settings.key_file, settings.management_url))
        while time.monotonic() < ends:
            assert client.find("starter")

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(inference_client(settings)) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(generating(client))
                group.create_task(polling(client.watcher))
                group.create_task(asyncio.to_thread(describing))


def test_torchserve_rejects_an_expired_key(short_lived: TorchServe) -> None:
    """Otherwise the test above proves nothing."""
    ends = time.monotonic() + SECONDS
    client = ModelClient(short_lived.settings, short_lived.key_file)
    while (response := client.manage("GET", "/models")).status_code == 200:
        assert time.monotonic() < ends, f"keys did not expire after {LIFETIME_S:g} s"
        time.sleep(0.1)
    assert (response.status_code, response.json()["type"]) == (400, "InvalidKeyException")
