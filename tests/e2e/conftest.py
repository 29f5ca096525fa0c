"""Fixtures of the browser tests: a browser, tracks, and the pages of running services."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from orchestrator.settings import Settings
from tests.e2e.musiclab_page import MusicLabPage
from tests.support.postgres import PostgresServer
from tests.support.project import PROJECT
from tests.support.service import Service, running
from tests.support.settings import settings_in
from tests.support.songs import TRACK_S, songs
from tests.support.tables import new_id
from tests.support.tracks import ffmpeg


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium. Closed after this package, because no other event loop can run until then."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "this test needs a browser on PATH: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """An empty browser profile."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def page_errors(context: BrowserContext) -> Iterator[list[str]]:
    """The errors that the browser reports: failing scripts and violations of the policy.

    Rejected and failed requests are not counted as errors of the page.
    """
    reported: list[str] = []
    context.on("weberror", lambda error: reported.append(str(error.error)))
    context.on("console", lambda message: reported.append(message.text))
    yield reported
    assert [each for each in reported if not each.startswith("Failed to load resource")] == []


@pytest.fixture
def open_page(page_errors: list[str], page: Page) -> Callable[[str], MusicLabPage]:
    """Opens the page of the service at a URL; the test fails if the browser reports errors."""
    built = PROJECT / "frontend" / "dist" / "index.html"
    assert built.is_file(), "the page is not built: run make setup"
    return lambda url: MusicLabPage(page).open(url)


@pytest.fixture
def lab(service: Service, open_page: Callable[[str], MusicLabPage]) -> MusicLabPage:
    """The page of the service that generates music."""
    return open_page(service.url)


@pytest.fixture(scope="package")
def api_only_settings(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Callable[..., Settings]:
    """A function that returns settings for an API without a worker; its arguments override them."""

    def choose(**others: object) -> Settings:
        chosen = {"rate_limit": 0, "max_track_mb": 1} | others
        chosen["database_url"] = postgres.create_database(f"waiting_{new_id()}")
        return settings_in(tmp_path_factory.mktemp("waiting")).model_copy(update=chosen)

    return choose


@pytest.fixture(scope="package")
def api_only(api_only_settings: Callable[..., Settings]) -> Iterator[Service]:
    """An API without a worker, so that jobs stay queued; tracks are limited to 1 MiB."""
    settings = api_only_settings()
    with running(settings, "api"):
        yield Service(settings)


@pytest.fixture
def queue(api_only: Service, open_page: Callable[[str], MusicLabPage]) -> MusicLabPage:
    """The page of the API whose jobs stay queued."""
    return open_page(api_only.url)


@pytest.fixture(scope="package")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first forty seconds of two songs."""
    directory = tmp_path_factory.mktemp("tracks")
    first, second = directory / "first.mp3", directory / "second.mp3"
    for song, track in zip(songs(), (first, second), strict=False):
        ffmpeg("-i", song, "-t", str(TRACK_S), "-b:a", "96k", track)
    return first, second
