"""The page while MusicLab is away, and when it comes back."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from orchestrator.settings import Settings
from tests.e2e.musiclab_page import MusicLabPage
from tests.service import Service, running

Tracks = tuple[Path, Path]
AWAY = "MusicLab cannot be reached."
A_LOOK_MS = 10_000
BROKEN_OFF = re.compile("^Waiting for another try: the model server broke off(: place 1)?$")


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


def test_music_is_made_though_torchserve_is_killed(
    service: Service, lab: MusicLabPage, tracks: Tracks
) -> None:
    torchserve = service.torchserve()
    lab.choose(tracks)
    torchserve.suspend()  # else the music may be there before it is killed
    lab.generate.click()
    expect(lab.job).to_contain_text("Generating music...")
    torchserve.kill()
    expect(lab.page.locator("#message")).to_have_text(BROKEN_OFF)
    expect(lab.page.locator("#eta")).to_be_hidden()
    lab.expect_music()
    lab.delete()
    expect(lab.history).to_have_count(0)


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
