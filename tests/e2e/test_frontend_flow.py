"""A page on another origin runs the documented flow in Chromium."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Download, Page, expect

from tests.e2e.musiclab_page import DONE_WITHIN_MS
from tests.support.service import Service
from tests.support.signals import RATE, SEGMENT, decoded, encoded, noise

HERE = Path(__file__).parent


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a directory without logging requests."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def frontend(service: Service) -> Iterator[str]:
    """The URL of the page on the other origin that the service allows."""
    origin = service.settings.cors_origins.split(",")[-1]
    port = urlsplit(origin).port
    assert port is not None
    handler = functools.partial(QuietHandler, directory=str(HERE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"{origin}/frontend.html?api={service.url}"
        server.shutdown()
        thread.join()


def test_the_documented_flow_works_from_another_origin(
    service: Service, frontend: str, page: Page, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / f"track{number}.flac").write_bytes(encoded(noise(17 * RATE, number), "FLAC"))
    page.goto(frontend)
    for number in (1, 2):
        page.set_input_files(f"#track{number}", tmp_path / f"track{number}.flac")

    downloads: list[Download] = []

    def keep(download: Download) -> None:
        downloads.append(download)

    page.context.on("page", lambda popup: popup.on("download", keep))
    page.on("download", keep)  # a popup that becomes a download closes at once

    page.click("#generate")
    finished = page.locator("#message", has_text="completed 100: Music generation complete!")
    expect(finished).to_be_visible(timeout=DONE_WITHIN_MS)
    while not downloads:
        page.wait_for_timeout(100)
    assert downloads[0].suggested_filename == "generated_music.wav"
    assert len(decoded(Path(downloads[0].path()).read_bytes())) == SEGMENT
    progress = page.evaluate("seen")
    assert progress == sorted(progress)

    job_id = page.evaluate("jobId")
    service.assert_only_music_left(job_id)
    page.evaluate("cleanup()")
    expect(page.locator("#message")).to_have_text("Job cleaned up successfully")
    assert f"music_{job_id}" not in service.cached_jobs()


def test_an_error_response_can_be_read_from_another_origin(
    service: Service, frontend: str, page: Page, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no music")
    page.goto(frontend)
    for number in (1, 2):
        page.set_input_files(f"#track{number}", tmp_path / "notes.txt")
    page.click("#generate")
    expect(page.locator("#message")).to_contain_text("rejected: track1 is named 'notes.txt'")
