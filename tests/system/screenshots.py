"""Screenshots of every state of the page, wide and narrow, light and dark, for manual review.

`python -m tests.system.screenshots --to DIRECTORY`. A MusicLab service with starter weights serves
the page and generates the music. Short-lived states are held by mocked API responses.
"""

import argparse
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.e2e.musiclab_page import LOADED_WITHIN_MS, MusicLabPage
from tests.support.service import Service, running
from tests.support.settings import settings_in
from tests.support.songs import songs
from tests.support.tracks import ffmpeg

WIDTHS = (1280, 390)
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HEIGHT = 800
SETTLED_MS = 600  # until the waveforms are drawn

JOB_ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = JOB_ID[::-1]
QUEUED: dict[str, Any] = {
    "job_id": JOB_ID,
    "status": "queued",
    "progress": 0,
    "message": "Waiting in the queue",
    "queue_position": 3,
    "eta_seconds": 42.0,
    "model_version": None,
    "codec": None,
}
RUNNING = QUEUED | {"status": "running", "eta_seconds": 2.0, "queue_position": None}
STAGES = {
    "converting": (10, "Converting audio to WAV..."),
    "extracting": (30, "Extracting audio segments..."),
    "waiting": (40, "Waiting for the model..."),
    "generating": (50, "Generating music..."),
    "saving": (95, "Saving output..."),
}
FAILED = QUEUED | {
    "status": "failed",
    "message": "track2: the window starts past the end of the track, which is 9.30 s long",
    "error_code": "window_past_end",
}
TOO_MANY = {
    "detail": "Generate and check requests are limited to 10 per minute from 192.0.2.1; "
    "try again in 30 s",
    "code": "too_many_requests",
}
NO_MODEL = {
    "model_loaded": False,
    "reason": "the model server is unreachable",
    "checkpoint": None,
    "codec": None,
}


class Photographer:
    """Takes the page through its states, with a screenshot of each."""

    def __init__(
        self, page: Page, service: Service, tracks: Path, to: Path, width: int, theme: str
    ) -> None:
        self.page = page
        self.lab = MusicLabPage(page)
        self.service = service
        self.tracks = tracks
        self.to = to
        self.width = width
        self.theme = theme
        self.numbers = itertools.count(1)

    def shoot(self, state: str) -> None:
        """Take a screenshot of the whole page in a viewport as tall as the page.

        Chromium's full-page screenshots lose the emulation of a phone.
        """
        self.page.wait_for_timeout(SETTLED_MS)
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({"width": self.width, "height": height})
        name = f"{next(self.numbers):02}-{state}-{self.width}-{self.theme}.png"
        self.page.screenshot(path=self.to / name)
        self.page.set_viewport_size({"width": self.width, "height": HEIGHT})

    @contextmanager
    def mocked(self, pattern: str, response: Callable[[Route], None]) -> Iterator[None]:
        """Handle all requests that match `pattern` with `response`."""
        self.page.route(pattern, response)
        yield
        self.page.unroute(pattern, response)

    @contextmanager
    def started(self, document: dict[str, Any]) -> Iterator[None]:
        """Start a job that stays in the state of `document`."""
        job_id = document["job_id"]
        accepted = {"job_id": job_id, "status": "queued", "message": "Generation started"}
        with (
            self.mocked("**/api/generate", lambda route: route.fulfill(status=202, json=accepted)),
            self.mocked(f"**/api/events/{job_id}", lambda route: _send_event(route, document)),
            self.mocked(f"**/api/status/{job_id}", lambda route: route.fulfill(json=document)),
            self.mocked("**/api/cleanup/*", lambda route: route.fulfill(json={"message": ""})),
        ):
            self.lab.generate.click()
            self.lab.job_id()  # waits until the browser has stored the job, too
            expect(self.lab.job).to_contain_text(document["message"])
            yield

    @contextmanager
    def job(self, document: dict[str, Any]) -> Iterator[None]:
        """A job that stays in the state of `document`, and is removed at the end."""
        with self.started(document):
            yield
            self.remove()

    def remove(self) -> None:
        self.lab.job.locator("#discard").click()
        expect(self.lab.job).to_be_hidden()

    def choosing(self) -> None:
        lab = self.lab.open(self.service.url)
        expect(self.page.locator("#notice")).to_contain_text("No trained model is loaded")
        self.shoot("empty-with-starter-weights")
        lab.put(1, self.tracks / "notes.txt")
        expect(lab.rejection(1)).to_be_visible()
        self.shoot("wrong-kind")
        lab.put(1, self.tracks / "text.wav")
        expect(lab.rejection(1)).to_contain_text("audio")
        self.shoot("undecodable")
        lab.put(1, self.tracks / "short.mp3")
        expect(lab.window(1)).to_be_visible()
        lab.put(2, self.tracks / "lossless.m4a")
        expect(self.page.get_by_text("This browser cannot play this file")).to_be_visible()
        self.shoot("short-track-and-one-that-cannot-be-played")
        self.page.reload()
        first, second, *_ = songs()
        lab.put(1, first)
        expect(lab.window(1)).to_be_visible()
        self.shoot("one-track")
        lab.choose((first, second))
        lab.start(1).fill("1:30")
        lab.start(1).press("Enter")
        lab.start(2).fill("soon")
        lab.start(2).press("Enter")
        self.shoot("two-tracks-and-an-invalid-time")
        lab.start(2).fill("2:00.5")
        lab.start(2).press("Enter")
        lab.card(2).get_by_label("Zoom").fill("60")
        self.shoot("two-tracks-zoomed")
        self.page.evaluate("document.dispatchEvent(new DragEvent('dragover', {cancelable: true}))")
        self.shoot("dragging")
        self.page.evaluate("document.dispatchEvent(new DragEvent('dragleave'))")

    def working(self) -> None:
        held: list[Route] = []
        with self.mocked("**/api/generate", lambda route: held.append(route)):
            self.lab.generate.click()
            expect(self.lab.job.get_by_text("Uploading")).to_be_visible()
            self.shoot("uploading")
            self.remove()
            held[0].abort()
        with self.mocked("**/api/generate", lambda route: _reject(route, 429, TOO_MANY)):
            self.lab.generate.click()
            expect(self.lab.job.get_by_text("limited to 10")).to_be_visible()
            self.shoot("not-sent")
            self.remove()
        with self.job(QUEUED):
            self.shoot("queued")
        for stage, (progress, message) in STAGES.items():
            with self.job(RUNNING | {"progress": progress, "message": message}):
                self.shoot(stage)
        with self.job(FAILED):
            self.shoot("failed")
        self.outages()

    def outages(self) -> None:
        with self.job(QUEUED):
            with (
                self.mocked("**/health", _abort),
                self.mocked("**/api/events/*", _abort),
                self.mocked("**/api/status/*", _abort),
            ):
                self.reload_until_notice("cannot be reached")
                expect(self.lab.job).to_contain_text("cannot be reached")
                self.shoot("service-unreachable")
            with self.mocked("**/health", lambda route: route.fulfill(json=NO_MODEL)):
                self.reload_until_notice("No model is available")
                self.shoot("no-model")
            self.reload_until_notice("No trained model is loaded")

    def reload_until_notice(self, text: str) -> None:
        """Reload the page, because it may otherwise take ten seconds to check the service again."""
        self.page.reload()
        expect(self.page.locator("#notice")).to_contain_text(text)
        for number in (1, 2):
            expect(self.lab.window(number)).to_be_visible(timeout=LOADED_WITHIN_MS)

    def listening(self) -> None:
        self.lab.generate.click()
        self.lab.expect_music()
        self.shoot("done")
        self.lab.button("Play").click()
        self.lab.job.get_by_role("radio").nth(1).check()
        self.page.wait_for_timeout(2_000)
        self.shoot("comparing")
        self.lab.button("Pause").click()
        self.lab.button("Delete").click()
        self.shoot("deleting")
        self.page.get_by_role("button", name="Keep").click()
        self.page.reload()
        self.lab.expect_music()
        self.lab.card(1).get_by_label("Window starts at").fill("3:00")
        self.lab.card(1).get_by_label("Window starts at").press("Enter")
        rejected = {
            "detail": "An API key is required: send X-API-Key: KEY or Authorization: Bearer KEY",
            "code": "unauthorized",
        }
        with self.mocked("**/api/generate", lambda route: _reject(route, 401, rejected)):
            self.lab.generate.click()
            expect(self.page.get_by_label("API key")).to_be_visible()
            self.shoot("key-needed")
        active = RUNNING | {"job_id": OTHER_ID, "progress": 50, "message": "Generating music..."}
        with self.started(FAILED), self.started(active):
            self.lab.history.last.click()
            self.lab.expect_music()
            self.shoot("history")


def _abort(route: Route) -> None:
    route.abort()


def _send_event(route: Route, document: dict[str, Any]) -> None:
    route.fulfill(content_type="text/event-stream", body=f"data: {json.dumps(document)}\n\n")


def _reject(route: Route, status: int, body: dict[str, str]) -> None:
    route.fulfill(status=status, json=body, headers={"Retry-After": "30"} if status == 429 else {})


def make_tracks(folder: Path) -> None:
    """Write files that the page rejects or cannot play, and a short track."""
    song = songs()[0]
    (folder / "notes.txt").write_text("no music")
    (folder / "text.wav").write_text("no music, despite the file name")
    ffmpeg("-i", song, "-t", "9.3", folder / "short.mp3")
    ffmpeg("-i", song, "-t", "40", "-vn", "-c:a", "alac", folder / "lossless.m4a")


def take_all(browser: Browser, service: Service, tracks: Path, to: Path) -> None:
    for width, theme in itertools.product(WIDTHS, THEMES):
        is_phone = width < WIDTHS[0]
        context = browser.new_context(
            viewport={"width": width, "height": HEIGHT},
            color_scheme=theme,
            is_mobile=is_phone,
            has_touch=is_phone,
        )
        page = context.new_page()
        photographer = Photographer(page, service, tracks, to, width, theme)
        photographer.choosing()
        photographer.working()
        photographer.listening()
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="directory for the screenshots")
    to: Path = parser.parse_args().to
    to.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("this needs a browser on PATH: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tracks(folder)
        settings = settings_in(folder).model_copy(update={"rate_limit": 0})
        with running(settings, "up"), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            take_all(browser, Service(settings), folder, to)
            browser.close()


if __name__ == "__main__":
    main()
