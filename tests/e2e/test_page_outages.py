"""The page while MusicLab or its model is away, and when it comes back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from orchestrator.settings import Settings
from tests.e2e.musiclab_page import MusicLabPage
from tests.support.service import Service, running

Tracks = tuple[Path, Path]
AWAY = "MusicLab cannot be reached."
BROKE_OFF = "Waiting for another try: the model server broke off"
A_LOOK_MS = 10_000
WITHIN_S = 90


def until_ready(service: Service, status: int = 200) -> None:
    """Wait until /ready answers so."""
    deadline = time.monotonic() + WITHIN_S
    while service.call("GET", "/ready").status_code != status:
        assert time.monotonic() < deadline, f"after {WITHIN_S} s /ready is still not {status}"
        time.sleep(0.1)


@pytest.fixture
def restored(service: Service) -> Iterator[Service]:
    """The service that makes music; what a test does to its model is over when it ends."""
    yield service
    until_ready(service)


def test_what_was_begun_goes_on_when_the_service_is_back(
    waiting_settings: Callable[..., Settings],
    page: Page,
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
) -> None:
    settings = waiting_settings()
    page.clock.install()
    with running(settings, "api"):
        lab = open_page(Service(settings).url)
        notice = page.locator("#notice")
        expect(notice).to_contain_text("No model is ready")
        lab.submit(tracks)
        expect(lab.job).to_contain_text("place 1")
    expect(lab.job).to_contain_text(f"{AWAY} Your job goes on")
    page.clock.fast_forward(A_LOOK_MS)
    expect(notice).to_have_text(f"{AWAY} This page keeps trying.")
    lab.put(1, tracks[1])
    expect(lab.card(1)).to_contain_text(tracks[1].name)
    expect(lab.generate).to_be_enabled()
    lab.generate.click()
    expect(lab.job).to_contain_text(f"{AWAY} The upload starts again when it is back")
    with running(settings, "api"):
        lab.job_id()
        expect(lab.job).to_contain_text("place 2")
        expect(lab.history.last).to_contain_text("queued")
        page.clock.fast_forward(A_LOOK_MS)
        expect(notice).to_contain_text("No model is ready")
        for left in (1, 0):
            lab.history.first.click()
            lab.button("Cancel").click()
            expect(lab.history).to_have_count(left)


def test_a_browser_that_was_offline_follows_its_job_again(
    queue: MusicLabPage, tracks: Tracks
) -> None:
    queue.submit(tracks)
    expect(queue.job).to_contain_text("place 1")
    queue.page.context.set_offline(True)
    queue.generate.click()
    expect(queue.job).to_contain_text(AWAY)
    queue.history.last.click()
    expect(queue.job).to_contain_text(AWAY)
    queue.page.context.set_offline(False)
    expect(queue.job).to_contain_text("place 1")
    queue.history.first.click()
    expect(queue.job).to_contain_text("place 2")
    for left in (1, 0):
        queue.history.first.click()
        queue.button("Cancel").click()
        expect(queue.history).to_have_count(left)


def test_a_job_at_work_outlives_the_model_server(
    restored: Service, page: Page, open_page: Callable[[str], MusicLabPage], tracks: Tracks
) -> None:
    page.clock.install()
    lab = open_page(restored.url)
    notice, left = page.locator("#notice"), lab.job.locator("#eta")
    expect(notice).to_contain_text("No trained model serves")
    lab.submit(tracks)
    lab.expect_music()  # from which MusicLab learns how long a job takes
    with restored.frozen_model():
        lab.generate.click()
        stage = lab.job.locator("#stages [aria-current]")
        expect(stage).to_have_text("Generate")
        restored.kill_torchserve()
        expect(lab.job).to_contain_text(f"{BROKE_OFF} (place 1)")
    expect(stage).to_have_text("Queue")
    assert left.is_hidden(), "a time is promised that nobody knows"
    expect(lab.history.first).to_contain_text("queued")
    until_ready(restored, 503)
    page.clock.fast_forward(A_LOOK_MS)
    expect(notice).to_contain_text("No model is ready")
    expect(notice).to_contain_text("Jobs wait in the queue.")
    lab.expect_music()
    expect(lab.history.first).to_contain_text("ready")
    expect(notice).to_contain_text("No trained model serves")
    lab.button("Play").click()
    expect(lab.button("Pause")).to_be_visible()
