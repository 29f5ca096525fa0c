"""The page while MusicLab or its model is unavailable, and when it is available again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from orchestrator.settings import Settings
from tests.e2e.musiclab_page import MusicLabPage
from tests.support.service import Service, running

Tracks = tuple[Path, Path]
UNREACHABLE = "MusicLab cannot be reached."
RETRY_REASON = "Waiting for another try: the connection to the model server was lost"
POLL_MS = 10_000
WITHIN_S = 90


def until_ready_returns(service: Service, status: int) -> None:
    """Waits until /ready returns the status."""
    deadline = time.monotonic() + WITHIN_S
    while service.call("GET", "/ready").status_code != status:
        assert time.monotonic() < deadline, f"after {WITHIN_S} s /ready is still not {status}"
        time.sleep(0.1)


@pytest.fixture
def restored(service: Service) -> Iterator[Service]:
    """The service that generates music; its model is ready again when the test ends."""
    yield service
    until_ready_returns(service, 200)


def test_jobs_and_uploads_continue_when_the_service_is_available_again(
    api_only_settings: Callable[..., Settings],
    page: Page,
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
) -> None:
    settings = api_only_settings()
    page.clock.install()
    with running(settings, "api"):
        lab = open_page(Service(settings).url)
        notice = page.locator("#notice")
        expect(notice).to_contain_text("No model is available")
        lab.submit(tracks)
        expect(lab.job).to_contain_text("position 1")
    expect(lab.job).to_contain_text(
        f"{UNREACHABLE} Your job will continue once the service is available. Retrying"
    )
    page.clock.fast_forward(POLL_MS)
    expect(notice).to_have_text(f"{UNREACHABLE} Retrying automatically.")
    lab.put(1, tracks[1])
    expect(lab.card(1)).to_contain_text(tracks[1].name)
    expect(lab.generate).to_be_enabled()
    lab.generate.click()
    expect(lab.job).to_contain_text(
        f"{UNREACHABLE} The upload will restart once the service is available"
    )
    with running(settings, "api"):
        lab.job_id()
        expect(lab.job).to_contain_text("position 2")
        expect(lab.history.last).to_contain_text("queued")
        page.clock.fast_forward(POLL_MS)
        expect(notice).to_contain_text("No model is available")
        for left in (1, 0):
            lab.history.first.click()
            lab.button("Cancel").click()
            expect(lab.history).to_have_count(left)


def test_a_browser_that_was_offline_shows_its_job_again(
    queue: MusicLabPage, tracks: Tracks
) -> None:
    queue.submit(tracks)
    expect(queue.job).to_contain_text("position 1")
    queue.page.context.set_offline(True)
    queue.generate.click()
    expect(queue.job).to_contain_text(UNREACHABLE)
    queue.history.last.click()
    expect(queue.job).to_contain_text(UNREACHABLE)
    queue.page.context.set_offline(False)
    expect(queue.job).to_contain_text("position 1")
    queue.history.first.click()
    expect(queue.job).to_contain_text("position 2")
    for left in (1, 0):
        queue.history.first.click()
        queue.button("Cancel").click()
        expect(queue.history).to_have_count(left)


def test_a_running_job_survives_a_restart_of_the_model_server(
    restored: Service, page: Page, open_page: Callable[[str], MusicLabPage], tracks: Tracks
) -> None:
    page.clock.install()
    lab = open_page(restored.url)
    notice, left = page.locator("#notice"), lab.job.locator("#eta")
    expect(notice).to_contain_text("No trained model is loaded")
    lab.submit(tracks)
    lab.expect_music()  # after which MusicLab can estimate how long a job takes
    with restored.frozen_model():
        lab.generate.click()
        stage = lab.job.locator("#stages [aria-current]")
        expect(stage).to_have_text("Generate")
        restored.kill_torchserve()
        expect(lab.job).to_contain_text(f"{RETRY_REASON} (position 1)")
    expect(stage).to_have_text("Queue")
    assert left.is_hidden(), "a remaining time is shown although it is unknown"
    expect(lab.history.first).to_contain_text("queued")
    until_ready_returns(restored, 503)
    page.clock.fast_forward(POLL_MS)
    expect(notice).to_contain_text("No model is available")
    expect(notice).to_contain_text("Jobs will wait in the queue.")
    lab.expect_music()
    expect(lab.history.first).to_contain_text("ready")
    expect(notice).to_contain_text("No trained model is loaded")
    lab.button("Play").click()
    expect(lab.button("Pause")).to_be_visible()
