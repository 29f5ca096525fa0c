"""What the API refuses, the page says at once, in the API's words; and what the API alone reads."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from orchestrator.settings import Settings
from tests.e2e.musiclab_page import LOADED_WITHIN_MS, MusicLabPage
from tests.e2e.test_page_jobs import jobs_of
from tests.service import Service, running
from tests.tracks import ffmpeg

Tracks = tuple[Path, Path]
KEY = "a key"
# As of a track whose length nobody could tell.
LATE_START = """() => {
    const append = FormData.prototype.append;
    FormData.prototype.append = function (name, ...value) {
        append.call(this, name, ...(name === "start_time_1" ? ["600"] : value));
    };
}"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"no music"),
        ("empty.wav", b""),
        ("large.flac", bytes(2**20 + 1)),
        ("notes.wav", b"no music either"),
    ],
)
def test_a_track_at_fault_is_refused_on_the_spot(
    waiting_room: Service,
    queue: MusicLabPage,
    tracks: Tracks,
    tmp_path: Path,
    name: str,
    content: bytes,
) -> None:
    bad, good = tmp_path / name, tracks[0]
    bad.write_bytes(content)
    files = {"track1": (good.name, good.read_bytes()), "track2": (name, content)}
    refusal = waiting_room.generate(files)
    assert refusal.status_code == 400

    queue.choose(tracks)
    queue.put(2, bad)
    expect(queue.refusal(2)).to_have_text(refusal.json()["detail"])
    expect(queue.card(2).get_by_role("alert")).to_be_visible()
    expect(queue.generate).to_be_disabled()
    expect(queue.page.locator("#hint")).to_have_text("Choose the other track, too.")
    queue.put(2, good)
    expect(queue.refusal(2)).to_be_hidden()
    expect(queue.generate).to_be_enabled()


def test_a_track_that_the_browser_cannot_decode_is_taken(
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


def test_a_job_that_fails_says_why_and_what_to_do(
    service: Service, lab: MusicLabPage, tracks: Tracks
) -> None:
    lab.choose(tracks)
    lab.page.evaluate(LATE_START)
    lab.generate.click()
    failed = service.finished(lab.job_id())
    assert (failed["status"], failed["error_code"]) == ("failed", "window_past_end")
    for _ in range(2):
        expect(lab.job.get_by_role("heading")).to_have_text("No music")
        trouble = lab.job.get_by_role("alert")
        expect(trouble.locator(".sentence")).to_have_text(failed["message"])
        expect(trouble).to_contain_text("Move the window to an earlier place")
        expect(lab.button("Try again")).to_be_hidden()
        expect(lab.history).to_contain_text("failed")
        lab.page.reload()
    lab.button("Again with other windows").click()
    expect(lab.window(1)).to_be_visible(timeout=LOADED_WITHIN_MS)
    expect(lab.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    lab.generate.click()
    lab.expect_music()
    expect(lab.history).to_have_count(2)
    lab.delete()
    expect(lab.history).to_have_count(1)
    lab.history.click()
    lab.button("Remove").click()
    expect(lab.history).to_have_count(0)


def test_who_asks_too_often_waits_and_loses_nothing(
    waiting_settings: Callable[..., Settings],
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
) -> None:
    settings = waiting_settings(rate_limit=1)
    service = Service(settings)
    with running(settings, "api"):
        lab = open_page(service.url)
        lab.page.clock.install()
        first = lab.submit(tracks)
        expect(lab.job).to_contain_text("place 1")
        lab.generate.click()
        expect(lab.job.get_by_role("alert")).to_contain_text("At most 1 requests")
        expect(lab.job.get_by_role("button", name="Try again in")).to_be_disabled()
        expect(lab.history.first).to_contain_text("not sent")
        assert jobs_of(service) == {first}
    with running(settings.model_copy(update={"rate_limit": 0}), "api"):
        lab.page.clock.fast_forward(60_000)
        lab.button("Try again").click()
        expect(lab.job).to_contain_text("place 2")
        assert len(jobs_of(service)) == 2
        for left in (1, 0):
            lab.history.first.click()
            lab.button("Cancel").click()
            expect(lab.history).to_have_count(left)


def test_the_page_asks_for_a_key_and_for_patience(
    waiting_settings: Callable[..., Settings],
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
) -> None:
    settings = waiting_settings(api_keys=KEY, max_queued=1)
    with running(settings, "api"):
        lab = open_page(Service(settings).url)
        field = lab.page.get_by_label("API key")
        use = lab.page.get_by_role("button", name="Use this key")
        lab.in_another_tab()  # which has no key, and leaves the job to this one
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
        expect(lab.job).to_contain_text("place 1")

        lab.generate.click()
        expect(lab.job.get_by_role("button", name="Try again in")).to_be_disabled()
        lab.history.last.click()
        lab.button("Cancel").click()
        expect(lab.history).to_have_count(1)
        lab.history.click()
        lab.page.clock.install()
        lab.page.clock.fast_forward(60_000)
        lab.button("Try again").click()
        expect(lab.job).to_contain_text("place 1")
        lab.button("Cancel").click()
        expect(lab.history).to_have_count(0)
