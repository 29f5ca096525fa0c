"""Keys that end within seconds disturb nobody; `make key-test` does it to jobs, for minutes."""

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
from tests.support.inference import TRACKS, watching
from tests.support.model_client import ModelClient
from tests.support.settings import settings_in
from tests.support.signals import SEGMENT, decoded
from tests.system.key_expiry import with_key_lifetime

LIFETIME_S = 3.0
SECONDS = 4 * LIFETIME_S
PAUSE_S = 0.5  # of a client between requests: keys end meanwhile as well


@pytest.fixture(scope="module")
def short_lived(
    tmp_path_factory: pytest.TempPathFactory, starter_archive: Path
) -> Iterator[TorchServe]:
    """A TorchServe whose keys end after three seconds."""
    settings = settings_in(tmp_path_factory.mktemp("keys"))
    with TorchServe(with_key_lifetime(settings, LIFETIME_S / 60), starter_archive) as server:
        server.wait_ready()
        yield server


async def test_several_processes_go_on_while_keys_end(short_lived: TorchServe) -> None:
    """Each has `Keys` of its own, as processes have: none waits for another to renew."""
    settings = short_lived.settings
    ends = time.monotonic() + SECONDS

    async def composing(client: InferenceClient) -> int:
        answers = 0
        while time.monotonic() < ends:
            assert len(decoded(await client.generate("starter", *TRACKS, "key-expiry"))) == SEGMENT
            answers += 1
            await asyncio.sleep(PAUSE_S)
        return answers

    async def looking(watch: ModelWatcher) -> None:
        while time.monotonic() < ends:
            await watch.next_poll()
            assert watch.status.ready, watch.status.reason

    def describing() -> None:
        client = ManagementClient(Tokens(settings.key_file, settings.management_url))
        while time.monotonic() < ends:
            assert client.find("starter")

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(watching(settings)) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(composing(client))
                group.create_task(looking(client.watcher))
                group.create_task(asyncio.to_thread(describing))


def test_a_key_that_has_ended_is_what_torchserve_refuses(short_lived: TorchServe) -> None:
    """Else the test above shows nothing."""
    ends = time.monotonic() + SECONDS
    client = ModelClient(short_lived.settings, short_lived.key_file)
    while (answer := client.manage("GET", "/models")).status_code == 200:
        assert time.monotonic() < ends, f"keys did not end after {LIFETIME_S:g} s"
        time.sleep(0.1)
    assert (answer.status_code, answer.json()["type"]) == (400, "InvalidKeyException")
