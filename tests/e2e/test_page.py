"""The page in Chromium, with the content security policy that nginx serves it with."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from playwright.sync_api import Page, expect

from orchestrator.settings import PROJECT
from tests.e2e.test_frontend_flow import DONE_WITHIN_MS
from tests.e2e.test_frontend_flow import page as page  # the browser
from tests.ports import free_ports
from tests.service import Service
from tests.signals import RATE, SEGMENT, decoded, encoded, noise

FRONTEND = PROJECT / "frontend"
POLICY = "Content-Security-Policy"
PASSED_ON = {"content-type", "x-api-key", "last-event-id", "range"}


def policy() -> str:
    """The page's content security policy in nginx' configuration."""
    found = re.search(rf'{POLICY} "([^"]+)"', (PROJECT / "deploy" / "nginx.conf").read_text())
    assert found, f"deploy/nginx.conf sets no {POLICY}"
    return found[1]


def front(api: str) -> web.Application:
    """The page and the API at one origin, as nginx has them."""

    async def answer_page(request: web.Request) -> web.StreamResponse:
        name = request.path.removeprefix("/") or "index.html"
        return web.FileResponse(FRONTEND / name, headers={POLICY: policy()})

    async def pass_on(request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() in PASSED_ON}
        body = request.content if request.can_read_body else None
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, api + request.path_qs, data=body, headers=headers
            ) as answer,
        ):
            kept = {k: v for k, v in answer.headers.items() if k != "Transfer-Encoding"}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            return response

    app = web.Application()
    app.router.add_route("*", "/api/{path:.*}", pass_on)
    app.router.add_get("/health", pass_on)
    app.router.add_get("/{path:.*}", answer_page)
    return app


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    """Where the page is served, beside the API of `service`."""
    (port,) = free_ports(1)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(front(service.url), shutdown_timeout=1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def faults(page: Page) -> list[str]:
    """What the browser complains of: scripts that fail, and what the policy forbids."""
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    return said


def choose_tracks(page: Page, folder: Path) -> None:
    for number in (1, 2):
        track = folder / f"track{number}.flac"
        track.write_bytes(encoded(noise(20 * RATE, number), "FLAC"))
        page.get_by_label("File").nth(number - 1).set_input_files(track)
        page.get_by_label("start at second").nth(number - 1).fill(str(number))


def test_generate_listen_download_delete(
    service: Service, address: str, page: Page, faults: list[str], tmp_path: Path
) -> None:
    page.goto(address)
    expect(page.get_by_text("Placeholder weights serve")).to_be_visible()
    choose_tracks(page, tmp_path)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    download = page.get_by_role("link", name="Download")
    expect(download).to_be_visible(timeout=DONE_WITHIN_MS)
    page.wait_for_function("document.querySelector('audio').duration === 16")
    with page.expect_download() as started:
        download.click()
    assert started.value.suggested_filename == "generated_music.wav"
    assert len(decoded(Path(started.value.path()).read_bytes())) == SEGMENT

    job_id = page.url.partition("#")[2]
    page.reload()
    expect(download).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    expect(download).to_be_hidden()
    assert f"music_{job_id}" not in service.cached_jobs()
    assert faults == []


def test_without_events_the_page_asks(address: str, page: Page, tmp_path: Path) -> None:
    page.route("**/api/events/*", lambda route: route.abort())
    page.goto(address)
    choose_tracks(page, tmp_path)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("link", name="Download")).to_be_visible(timeout=DONE_WITHIN_MS)
    page.get_by_role("button", name="Delete").click()


def test_a_refusal_is_shown_in_the_services_words(address: str, page: Page, tmp_path: Path) -> None:
    page.goto(address)
    choose_tracks(page, tmp_path)
    (tmp_path / "notes.txt").write_text("no music")
    page.get_by_label("File").first.set_input_files(tmp_path / "notes.txt")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("track1 is called 'notes.txt'")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
