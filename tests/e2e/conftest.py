"""A browser, tracks to choose, and the page of a service."""

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
    """Chromium; closed after this folder, as until then no other event loop can run."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "this test needs a browser on PATH: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's profile, with nothing in it."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def faults(context: BrowserContext) -> Iterator[list[str]]:
    """What the browser complains of: scripts that fail, and what the policy forbids.

    That a request was refused or came to nothing is no fault of the page's.
    """
    said: list[str] = []
    context.on("weberror", lambda error: said.append(str(error.error)))
    context.on("console", lambda message: said.append(message.text))
    yield said
    assert [each for each in said if not each.startswith("Failed to load resource")] == []


@pytest.fixture
def open_page(faults: list[str], page: Page) -> Callable[[str], MusicLabPage]:
    """Opens the page that a service has at that address; it may complain of nothing."""
    built = PROJECT / "frontend" / "dist" / "index.html"
    assert built.is_file(), "the page is not built: run make setup"
    return lambda url: MusicLabPage(page).open(url)


@pytest.fixture
def lab(service: Service, open_page: Callable[[str], MusicLabPage]) -> MusicLabPage:
    """The page of the service that makes music."""
    return open_page(service.url)


@pytest.fixture(scope="package")
def waiting_settings(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Callable[..., Settings]:
    """Settings for an API without a worker or a model, with others chosen beside these."""

    def choose(**others: object) -> Settings:
        chosen = {"rate_limit": 0, "max_track_mb": 1} | others
        chosen["database_url"] = postgres.create_database(f"waiting_{new_id()}")
        return settings_in(tmp_path_factory.mktemp("waiting")).model_copy(update=chosen)

    return choose


@pytest.fixture(scope="package")
def waiting_room(waiting_settings: Callable[..., Settings]) -> Iterator[Service]:
    """An API in whose queue jobs stay; a track may have 1 MiB."""
    settings = waiting_settings()
    with running(settings, "api"):
        yield Service(settings)


@pytest.fixture
def queue(waiting_room: Service, open_page: Callable[[str], MusicLabPage]) -> MusicLabPage:
    """The page of the API in whose queue jobs stay."""
    return open_page(waiting_room.url)


@pytest.fixture(scope="package")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Forty seconds of each of two songs."""
    folder = tmp_path_factory.mktemp("tracks")
    first, second = folder / "first.mp3", folder / "second.mp3"
    for song, track in zip(songs(), (first, second), strict=False):
        ffmpeg("-i", song, "-t", str(TRACK_S), "-b:a", "96k", track)
    return first, second
