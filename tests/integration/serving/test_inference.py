"""The TorchServe clients: the status of loaded versions and the outcome of requests."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.archives.archive import archive_path, import_archive
from orchestrator.errors import (
    InferenceNotStartedError,
    ModelRejectedInputError,
    ModelUnavailableError,
)
from orchestrator.serving.inference import InferenceClient
from orchestrator.serving.process import TorchServe
from orchestrator.serving.status import LoadedVersion, ModelStatus
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.watcher import ModelWatcher
from orchestrator.settings import Settings
from tests.support.inference import TRACKS, inference_client
from tests.support.log_lines import Line, lines_of
from tests.support.model_client import ModelClient
from tests.support.service import torchserve_processes
from tests.support.settings import settings_in
from tests.support.signals import SEGMENT, decoded
from tests.support.versions import Change, altered, unchanged, with_text

JOB = "b1946ac92492d2347c6235b4d2611184"
WAIT_S = 60.0
FAILED_WITHIN_S = 8.0  # from the death of a worker until its request fails

Load = Callable[[str, Change], None]


@pytest.fixture(scope="module")
def own_server(
    starter_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TorchServe]:
    """A TorchServe for these tests only, which kill workers and load versions."""
    settings = settings_in(tmp_path_factory.mktemp("own"))
    import_archive(settings, starter_archive)
    altered(settings, "starter", "first", unchanged)
    with TorchServe(settings, archive_path(settings.model_store, "first")) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def load(own_server: TorchServe) -> Iterator[Load]:
    """A function that loads a changed copy of version "first" as an additional version."""
    loaded = []
    manage = ModelClient(own_server.settings, own_server.key_file).manage

    def load_version(version: str, change: Change) -> None:
        altered(own_server.settings, "first", version, change)
        archive = archive_path(own_server.settings.model_store, version)
        response = manage(
            "POST", "/models", url=archive.name, initial_workers=1, synchronous="true"
        )
        assert response.status_code == 200, response.text
        loaded.append(version)

    yield load_version
    for version in loaded:
        manage("DELETE", f"/models/musiclab/{version}")


async def until(watch: ModelWatcher, condition: Callable[[ModelStatus], bool]) -> None:
    """Waits until a poll finds that the condition holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition(watch.status):
        assert time.monotonic() < deadline, f"condition not met after {WAIT_S:g} s: {watch.status}"
        await watch.next_poll()


def worker_lines(server: TorchServe, job_id: str) -> list[Line]:
    return lines_of(server.folder / "logs" / "model_log.log", job_id)


def found(status: ModelStatus, version: str) -> LoadedVersion:
    loaded = status.find(version)
    assert loaded is not None, f"{version} is not among {status.versions}"
    return loaded


async def running_request(
    server: TorchServe, client: InferenceClient, version: str
) -> asyncio.Task[bytes]:
    """Sends a request and waits until a worker has started on it; returns its task."""
    metrics = ModelClient(server.settings, server.key_file)

    async def batches() -> float:
        return await asyncio.to_thread(
            metrics.metric, "musiclab_batch_size_count", model_version=version
        )

    before, deadline = await batches(), time.monotonic() + WAIT_S
    request = asyncio.create_task(client.generate(version, *TRACKS, JOB))
    while await batches() == before:
        assert time.monotonic() < deadline, f"no worker accepted the request within {WAIT_S:g} s"
        assert not request.done(), "the request was answered before it was seen running"
        await asyncio.sleep(0.01)
    return request


async def test_the_status_describes_the_loaded_versions(model_server: TorchServe) -> None:
    async with inference_client(model_server.settings) as client:
        status = client.watcher.status
        pids = found(status, "starter").worker_pids
        (version,) = status.versions
        expected = LoadedVersion("starter", True, 1, 1, "cpu", "starter", "starter", pids, 4)
        assert version == expected
        assert status == ModelStatus(
            True, "", "starter", "cpu", "starter", "starter", versions=(version,)
        )
        assert pids < {process.pid for process in torchserve_processes(model_server.settings)}
        assert status.find("another") is None

        elsewhere = ModelStatus.from_json(json.loads(json.dumps(status.to_json())))
        without_pids = replace(version, worker_pids=frozenset())
        assert elsewhere == replace(status, versions=(without_pids,))


async def test_a_request_returns_music_or_a_rejection(model_server: TorchServe) -> None:
    async with inference_client(model_server.settings) as client:
        assert len(decoded(await client.generate("starter", *TRACKS, "answered"))) == SEGMENT
        with pytest.raises(
            ModelRejectedInputError, match="track2 is not a readable audio file"
        ) as rejected:
            await client.generate("starter", TRACKS[0], b"no audio", "rejected")
        assert rejected.value.code == "not_audio"
        for job_id, status, stages in (
            ("answered", 200, {"request_decode", "encode", "cascade", "decode"}),
            ("rejected", 400, {"request_decode"}),
        ):
            (line,) = worker_lines(model_server, job_id)
            assert (line["event"], line["status"]) == ("request answered", status)
            assert (line["model_version"], line["batch_size"]) == ("starter", 1)
            assert line["seconds"].keys() == stages
        assert line["code"] == "not_audio"
        assert "track2" in line["detail"]


async def test_a_request_that_torchserve_does_not_accept_is_not_started(
    model_server: TorchServe, tmp_path: Path
) -> None:
    stale = tmp_path / "key_file.json"
    stale.write_text('{"inference": {"key": "of-an-earlier-start"}}')
    async with inference_client(model_server.settings) as client:
        with pytest.raises(InferenceNotStartedError, match="404"):
            await client.generate("unknown", *TRACKS, JOB)
        with pytest.raises(InferenceNotStartedError, match="400"):
            tokens = Tokens(stale, model_server.settings.management_url)
            await replace(client, tokens=tokens).generate("starter", *TRACKS, JOB)
        without_key = ModelWatcher(client.session, model_server.settings, tokens)
        running = asyncio.create_task(without_key.run())
        await without_key.next_poll()
        running.cancel()
        assert without_key.status.reason == "the model server rejects the available key"


async def test_without_torchserve_the_model_is_unavailable(settings: Settings) -> None:
    async with inference_client(settings) as client:
        assert client.watcher.status == ModelStatus(False, reason="the model server is unreachable")
        with pytest.raises(InferenceNotStartedError, match=r"is unreachable$"):
            await client.generate("starter", *TRACKS, JOB)


async def test_a_killed_worker_is_detected_soon_and_replaced(
    own_server: TorchServe,
) -> None:
    async with inference_client(own_server.settings) as client:
        (pid,) = killed = found(client.watcher.status, "first").worker_pids
        request = await running_request(own_server, client, "first")
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(ModelUnavailableError) as lost:
            await request
        assert not isinstance(lost.value, InferenceNotStartedError)
        assert time.monotonic() - began < FAILED_WITHIN_S

        await until(client.watcher, lambda status: not status.ready)
        assert client.watcher.status.reason == "the model is loading"
        await until(client.watcher, lambda status: status.ready)
        assert not found(client.watcher.status, "first").worker_pids & killed
        assert len(decoded(await client.generate("first", *TRACKS, JOB))) == SEGMENT


async def test_all_versions_are_listed_and_requests_to_a_deleted_one_fail(
    own_server: TorchServe, load: Load
) -> None:
    manage = ModelClient(own_server.settings, own_server.key_file).manage
    load("second", unchanged)
    async with inference_client(own_server.settings) as client:
        both = {loaded.version: loaded for loaded in client.watcher.status.versions}
        assert {version: loaded.default for version, loaded in both.items()} == {
            "first": True,
            "second": False,
        }
        assert both["second"].device == "cpu"
        assert not both["first"].worker_pids & both["second"].worker_pids

        manage("PUT", "/models/musiclab/second/set-default")
        await until(client.watcher, lambda status: status.version == "second")
        assert found(client.watcher.status, "second").default
        manage("PUT", "/models/musiclab/first/set-default")
        await until(client.watcher, lambda status: status.version == "first")

        # A request whose version is deleted gets no response, or the error that its worker died.
        request = await running_request(own_server, client, "second")
        began = time.monotonic()
        assert manage("DELETE", "/models/musiclab/second").status_code == 200
        with pytest.raises(ModelUnavailableError, match=r"did not respond|Worker died") as lost:
            await request
        assert not isinstance(lost.value, InferenceNotStartedError)
        assert time.monotonic() - began < FAILED_WITHIN_S
        await until(client.watcher, lambda status: status.find("second") is None)


async def test_a_missing_worker_is_distinguished_from_failing_code(
    own_server: TorchServe, load: Load
) -> None:
    raising = "raise ValueError('on purpose')"
    load("raising", with_text("musiclab_handler.py", "started = time.perf_counter()", raising))
    manage = ModelClient(own_server.settings, own_server.key_file).manage

    # TorchServe returns 503 in both cases.
    async with inference_client(own_server.settings) as client:
        with pytest.raises(ModelUnavailableError, match="503") as failed:
            await client.generate("raising", *TRACKS, "raised")
        assert not isinstance(failed.value, InferenceNotStartedError)
        (line,) = worker_lines(own_server, "raised")
        assert (line["model_version"], line["level"], line["batch_size"]) == ("raising", "error", 1)
        assert line["exception"][0]["exc_value"] == "on purpose"

        scaled = manage(
            "PUT", "/models/musiclab/raising", min_worker=0, max_worker=0, synchronous="true"
        )
        assert scaled.status_code == 200, scaled.text
        with pytest.raises(InferenceNotStartedError, match="503"):
            await client.generate("raising", *TRACKS, JOB)
