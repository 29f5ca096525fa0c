"""Errors that the page shows in the API's own words, and tracks that only the API decodes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from orchestrator.database.schema import submissions
from orchestrator.jobs.admission import RATE_WINDOW_S
from orchestrator.settings import Settings
from tests.e2e.musiclab_page import LOADED_WITHIN_MS, MusicLabPage
from tests.e2e.test_page_jobs import jobs_of
from tests.support.postgres import execute
from tests.support.service import Service, running
from tests.support.tracks import ffmpeg

Tracks = tuple[Path, Path]
KEY = "a key"
WAIT_S = 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"no music"),
        ("empty.wav", b""),
        ("large.flac", bytes(2**20 + 1)),
        ("notes.wav", b"no music either"),
    ],
)
def test_an_invalid_track_is_rejected_when_it_is_chosen(
    api_only: Service,
    queue: MusicLabPage,
    tracks: Tracks,
    tmp_path: Path,
    name: str,
    content: bytes,
) -> None:
    bad, good = tmp_path / name, tracks[0]
    bad.write_bytes(content)
    files = {"track1": (good.name, good.read_bytes()), "track2": (name, content)}
    rejection = api_only.generate(files)
    assert rejection.status_code == 400

    queue.choose(tracks)
    queue.put(2, bad)
    expect(queue.rejection(2)).to_have_text(rejection.json()["detail"])
    expect(queue.card(2).get_by_role("alert")).to_be_visible()
    expect(queue.generate).to_be_disabled()
    expect(queue.page.locator("#hint")).to_have_text("Choose one more track.")
    queue.put(2, good)
    expect(queue.rejection(2)).to_be_hidden()
    expect(queue.generate).to_be_enabled()


def test_a_track_that_the_browser_cannot_decode_is_accepted(
    lab: MusicLabPage, tracks: Tracks, tmp_path: Path
) -> None:
    lossless = tmp_path / "lossless.m4a"
    ffmpeg("-i", tracks[0], "-c:a", "alac", lossless)
    lab.put(1, lossless)
    lab.put(2, tracks[1])
    expect(lab.card(1)).to_contain_text("This browser cannot play this file")
    expect(lab.card(1).locator(".length")).to_have_text("0:40")
    expect(lab.window(1)).to_be_hidden()
    lab.start(1).fill("99")
    lab.start(1).press("Enter")
    expect(lab.start(1)).to_have_value("0:24.00")
    expect(lab.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    lab.generate.click()
    lab.expect_music()
    expect(lab.job.get_by_role("radio", name=lossless.name)).to_be_disabled()
    expect(lab.job.get_by_role("radio", name=tracks[1].name)).to_be_enabled()


def test_the_page_asks_for_an_api_key_and_retries_when_the_queue_was_full(
    api_only_settings: Callable[..., Settings],
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
) -> None:
    settings = api_only_settings(api_keys=KEY, max_queued=1)
    with running(settings, "api"):
        lab = open_page(Service(settings).url)
        field = lab.page.get_by_label("API key")
        use = lab.page.get_by_role("button", name="Use this key")
        lab.in_another_tab()  # it has no key, and leaves the job to this tab
        lab.choose(tracks)
        expect(field).to_be_hidden()
        lab.generate.click()
        expect(lab.job.get_by_role("alert")).to_contain_text("API key")
        for key in ("another key", KEY):
            expect(field).to_be_visible()
            field.fill(key)
            use.click()
        lab.job_id()
        expect(field).to_be_hidden()
        expect(lab.job).to_contain_text("position 1")

        lab.generate.click()
        expect(lab.job.get_by_role("button", name="Try again in")).to_be_disabled()
        lab.history.last.click()
        lab.button("Cancel").click()
        expect(lab.history).to_have_count(1)
        lab.history.click()
        lab.page.clock.install()
        lab.page.clock.fast_forward(60_000)
        lab.button("Try again").click()
        expect(lab.job).to_contain_text("position 1")
        lab.button("Cancel").click()
        expect(lab.history).to_have_count(0)


def test_a_rate_limited_request_can_be_sent_after_a_wait(
    api_only_settings: Callable[..., Settings],
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
) -> None:
    settings = api_only_settings(rate_limit=1)
    with running(settings, "api"):
        service = Service(settings)
        lab = open_page(service.url)
        lab.choose(tracks)
        lab.start(1).fill("7.5")
        lab.start(1).press("Enter")
        checked = {"track1": (tracks[0].name, tracks[0].read_bytes())}
        assert service.call("POST", "/api/check/track1", files=checked).ok
        older = submissions.c.at - (RATE_WINDOW_S - WAIT_S)
        execute(settings, submissions.update().values(at=older))

        lab.generate.click()
        alert = lab.job.get_by_role("alert")
        expect(alert).to_contain_text("Generate and check requests are limited to 1 per minute")
        expect(alert).to_contain_text("Nothing is lost: wait a moment, then try again.")
        again = lab.job.get_by_role("button", name="Try again")
        expect(again).to_have_text(re.compile(f"^Try again in [1-{WAIT_S}] s$"))
        expect(again).to_be_disabled()
        left = int(again.inner_text().split()[-2])
        expect(again).to_have_text(re.compile(f"^Try again in [1-{left - 1}] s$"))
        expect(lab.history).to_contain_text("not sent")
        lab.page.reload()
        expect(again).to_be_visible()
        for number, track in enumerate(tracks, 1):
            expect(lab.card(number)).to_contain_text(track.name)
        expect(lab.start(1)).to_have_value("0:07.50")
        assert jobs_of(service) == set()

        expect(again).to_be_enabled(timeout=1_500 * WAIT_S)
        expect(again).to_have_text("Try again")
        again.click()
        expect(lab.job).to_contain_text("position 1")
        expect(lab.job).to_contain_text(f"{tracks[0].name}, 0:07.50 to 0:23.50")
        expect(lab.history).to_have_count(1)
        assert jobs_of(service) == {lab.job_id()}
