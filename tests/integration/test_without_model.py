"""The API while TorchServe is down: nothing is lost, and nothing is spent."""

import asyncio

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app
from orchestrator.settings import Settings
from orchestrator.worker import worker
from tests.support.cache import entries
from tests.support.signals import RATE, encoded, noise


def test_jobs_wait_and_can_be_deleted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_S", 0.05)

    async def scenario() -> None:
        async with TestClient(TestServer(create_app(settings))) as client:
            health = await (await client.get("/health")).json()
            assert (health["status"], health["model_loaded"]) == ("degraded", False)
            assert health["reason"]

            form = FormData()
            for name in ("track1", "track2"):
                form.add_field(name, encoded(noise(RATE, 1)), filename=f"{name}.wav")
            accepted = await client.post("/api/generate", data=form)
            assert accepted.status == 202
            job_id = (await accepted.json())["job_id"]

            await asyncio.sleep(1)  # time in which a worker that does not wait would try
            status = await (await client.get(f"/api/status/{job_id}")).json()
            assert (status["status"], status["progress"], status["attempts"]) == ("queued", 0, 0)
            assert status["queue_position"] == 1
            early = await client.get(f"/api/download/{job_id}")
            assert (early.status, (await early.json())["code"]) == (400, "not_ready")

            assert (await client.delete(f"/api/cleanup/{job_id}")).status == 200
            assert entries(settings.cache) == []

    asyncio.run(scenario())


def part(name: str, content: bytes) -> bytes:
    head = f'--abc\r\nContent-Disposition: form-data; name="{name}"; filename="x.wav"\r\n\r\n'
    return head.encode() + content


SOUND = encoded(noise(RATE, 1))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_form"),
        (b"no form at all", "malformed_form"),
        (b"--abc\r\nContent-Disp", "malformed_form"),
        (part("track1", SOUND) + b"\r\n" + part("track2", SOUND[:20_000]), "malformed_form"),
        (b"--abc--\r\n", "missing_field"),
        (
            part("track1", SOUND) + b"\r\n" + part("track1", SOUND) + b"\r\n--abc--",
            "repeated_field",
        ),
    ],
    ids=["empty", "no form", "cut header", "cut track", "nothing in it", "repeated"],
)
def test_a_broken_form_is_refused_and_leaves_nothing(
    settings: Settings, body: bytes, code: str
) -> None:
    async def scenario() -> None:
        async with TestClient(TestServer(create_app(settings))) as client:
            kind = {"Content-Type": "multipart/form-data; boundary=abc"}
            refused = await client.post("/api/generate", data=body, headers=kind)
            assert (refused.status, (await refused.json())["code"]) == (400, code)
            assert entries(settings.cache) == []

    asyncio.run(scenario())
