"""The page with hasty users, unusual files and restricted browsers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from orchestrator.audio.window import SECONDS
from tests.e2e.musiclab_page import (
    DONE_WITHIN_MS,
    LOADED_WITHIN_MS,
    MusicLabPage,
    click_at,
    seconds,
)
from tests.e2e.test_page_jobs import jobs_of
from tests.support.service import Service
from tests.support.signals import RATE, encoded, tones
from tests.support.songs import TRACK_S
from tests.support.tracks import ffmpeg

Tracks = tuple[Path, Path]
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
DROP = """async ([card, sounds]) => {
    const dropped = new DataTransfer();
    for (const [name, content] of sounds) {
        dropped.items.add(new File([new Uint8Array(content)], name));
    }
    const options = { dataTransfer: dropped, bubbles: true, cancelable: true };
    card.dispatchEvent(new DragEvent("drop", options));
}"""
# Later attempts to open the database wait for a deletion, which waits for this connection.
BLOCK_DATABASE = """() => new Promise(resolve => {
    const opening = indexedDB.open("musiclab", 1);
    opening.onsuccess = () => {
        window.held = opening.result;
        indexedDB.deleteDatabase("musiclab").onblocked = resolve;
    };
})"""
# As in private windows of Safari, which cannot store files.
NO_FILES = """
const put = IDBObjectStore.prototype.put;
IDBObjectStore.prototype.put = function (value, ...key) {
    if ([value, ...Object.values(value)].some(part => part instanceof Blob)) {
        throw new DOMException("Error preparing Blob/File data", "UnknownError");
    }
    return put.call(this, value, ...key);
};
"""
# As in Firefox on a machine without audio output.
NO_SOUND = """
Object.defineProperty(BaseAudioContext.prototype, "state", { get: () => "suspended" });
AudioContext.prototype.resume = () => new Promise(() => {});
"""
SOUND_WITHIN_MS = 5_000


def test_a_double_click_creates_one_job(
    api_only: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    before = jobs_of(api_only)
    queue.choose(tracks)
    queue.generate.dblclick(delay=150)
    expect(queue.job).to_contain_text("position 1")
    expect(queue.history).to_have_count(1)
    queue.button("Cancel").dblclick()
    expect(queue.history).to_have_count(0)
    assert jobs_of(api_only) == before


def test_other_files_can_be_chosen_at_any_time(
    api_only: Service, queue: MusicLabPage, tracks: Tracks, tmp_path: Path
) -> None:
    short = tmp_path / '<b>five seconds & "more".wav'
    short.write_bytes(encoded(tones(5 * RATE, 440)))
    (tmp_path / "notes.txt").write_text("no music")
    queue.put(1, tmp_path / "notes.txt")
    queue.put(1, tracks[0])
    queue.put(1, short)
    expect(queue.card(1)).to_contain_text(short.name)
    expect(queue.card(1)).to_contain_text("This track is 5.0 s long")
    expect(queue.card(1).get_by_label("Zoom")).to_be_hidden()
    queue.put(2, tracks[1])
    expect(queue.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    queue.generate.click()
    expect(queue.job).to_contain_text("position 1")
    queue.put(1, tracks[1])
    expect(queue.card(1)).to_contain_text(tracks[1].name)
    expect(queue.job).to_contain_text(f"{short.name}, 0:00.00 to 0:05.00")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)
    expect(queue.card(1)).to_contain_text(tracks[1].name)
    expect(queue.generate).to_be_enabled()


def test_an_invalid_time_is_reported(queue: MusicLabPage, tracks: Tracks) -> None:
    queue.choose(tracks)
    queue.start(1).fill("7")
    queue.start(1).press("Enter")
    queue.start(1).fill("soon")
    queue.start(1).press("Enter")
    expect(queue.start(1)).to_have_attribute("aria-invalid", "true")
    expect(queue.card(1)).to_contain_text('"soon" is not a valid time.')
    expect(queue.generate).to_be_disabled()
    expect(queue.page.locator("#start")).to_contain_text("Enter a valid start time for the window.")
    expect(queue.window(1)).to_have_attribute("aria-valuenow", "7")
    queue.start(1).fill("1:00")
    queue.start(1).press("Enter")
    expect(queue.start(1)).to_have_attribute("aria-invalid", "false")
    expect(queue.card(1)).to_contain_text("The window can start no later than 0:24.0")
    expect(queue.generate).to_be_enabled()


def test_files_can_be_dropped(queue: MusicLabPage) -> None:
    sounds = [
        [f"{hertz} Hz.wav", list(encoded(tones(RATE // 4, hertz)))] for hertz in (330, 440, 550)
    ]
    anywhere = queue.generate.element_handle()
    queue.page.evaluate(DROP, [queue.card(2).element_handle(), sounds[:1]])
    expect(queue.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    queue.page.evaluate(DROP, [anywhere, sounds[1:2]])
    for number, name in ((1, "440 Hz.wav"), (2, "330 Hz.wav")):
        expect(queue.card(number)).to_contain_text(name)
    expect(queue.window(1)).to_be_visible(timeout=LOADED_WITHIN_MS)
    queue.page.evaluate(DROP, [anywhere, sounds])
    for number, name in ((1, "330 Hz.wav"), (2, "440 Hz.wav")):
        expect(queue.card(number)).to_contain_text(name)
    expect(queue.generate).to_be_enabled(timeout=LOADED_WITHIN_MS)


def test_loading_and_deleting_music_can_be_retried(lab: MusicLabPage, tracks: Tracks) -> None:
    held = lab.hold("**/api/download/*")
    lab.submit(tracks)
    expect(lab.button("Delete")).to_be_visible(timeout=DONE_WITHIN_MS)
    expect(lab.button("Play")).to_be_disabled()
    top = lab.button("Delete").evaluate("it => it.offsetTop")
    held[0].abort()
    expect(lab.job.get_by_role("alert")).to_contain_text("MusicLab cannot be reached.")
    lab.release("**/api/download/*")
    lab.button("Try again").click()
    lab.expect_music()
    moved = lab.button("Delete").evaluate("it => it.offsetTop") - top
    assert moved == 0, "the button moved when the music was loaded"
    lab.page.route("**/api/cleanup/*", lambda route: route.abort())
    lab.delete()
    expect(lab.job.get_by_role("alert")).to_contain_text("MusicLab cannot be reached.")
    lab.page.unroute("**/api/cleanup/*")
    lab.button("Try again").click()
    expect(lab.history).to_have_count(0)


def test_the_title_of_a_hidden_tab_announces_the_end_of_a_job(
    lab: MusicLabPage, tracks: Tracks
) -> None:
    lab.submit(tracks)
    lab.page.evaluate(HIDE, True)
    expect(lab.page).to_have_title(re.compile("^Done .+ MusicLab$"), timeout=DONE_WITHIN_MS)
    lab.page.evaluate(HIDE, False)
    expect(lab.page).to_have_title("MusicLab")
    expect(lab.page.locator("#announcement")).to_have_text("Your music is ready.")
    lab.expect_music()


def test_the_url_of_a_job_works_in_any_browser(
    lab: MusicLabPage, browser: Browser, tracks: Tracks
) -> None:
    lab.submit(tracks)
    lab.expect_music()
    address = lab.page.url
    lab.page.goto("about:blank")
    lab.page.go_back()
    lab.expect_music()

    context = browser.new_context()
    other = MusicLabPage(context.new_page()).open(address)
    other.expect_music()
    expect(other.history).to_contain_text("From a link")
    expect(other.button("Choose other windows")).to_be_hidden()
    other.button("Play").click()
    expect(other.button("Pause")).to_be_visible()
    other.delete()
    expect(other.history).to_have_count(0)
    expect(other.button("Pause")).to_be_hidden()
    context.close()
    lab.page.reload()
    expect(lab.page.locator("#gone")).to_contain_text("was deleted or has expired.")
    expect(lab.history).to_have_count(0)


def test_only_one_track_plays_at_a_time(queue: MusicLabPage, tracks: Tracks) -> None:
    queue.choose(tracks)
    both = queue.page.get_by_role("button", name="Play window")
    both.first.click()
    both.last.click()
    stop = queue.page.get_by_role("button", name="Stop")
    expect(queue.card(2).get_by_role("button", name="Stop")).to_be_visible()
    expect(stop).to_have_count(1)
    queue.card(1).get_by_role("button", name="Play window").click()
    expect(queue.card(1).get_by_role("button", name="Stop")).to_be_visible()
    expect(stop).to_have_count(1)
    queue.window(1).press("End")
    expect(both).to_have_count(2)


def test_a_window_moved_by_keys_stays_in_view_when_zoomed(
    queue: MusicLabPage, tracks: Tracks
) -> None:
    queue.choose(tracks)
    click_at(queue.card(1).locator(".waveform"), 0.5)
    middle = TRACK_S / 2 - SECONDS / 2
    assert abs(seconds(queue.start(1).input_value()) - middle) < 0.2
    queue.card(1).get_by_label("Zoom").fill("100")
    for key, start in (("End", "0:24.0"), ("Home", "0:00.00"), ("PageUp", "0:16.00")):
        queue.window(1).press(key)
        expect(queue.start(1)).to_have_value(re.compile(f"^{start}"))
        expect(queue.window(1)).to_be_focused()
        expect(queue.window(1)).to_be_in_viewport()


def test_a_track_too_long_to_be_drawn_is_accepted(
    queue: MusicLabPage, tracks: Tracks, tmp_path: Path
) -> None:
    long = tmp_path / "long.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "1300", long)
    queue.put(1, long)
    expect(queue.card(1)).to_contain_text("This track is too long to display and play here")
    expect(queue.card(1).locator(".length")).to_have_text("21:40")
    queue.put(2, tracks[1])
    queue.start(1).fill("20:00")
    queue.start(1).press("Enter")
    expect(queue.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    queue.generate.click()
    expect(queue.job).to_contain_text("position 1")
    expect(queue.job).to_contain_text("long.flac, 20:00.00 to 20:16.00")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)


@pytest.mark.parametrize("database", ["forbidden", "blocked"])
def test_the_page_works_without_browser_storage(
    api_only: Service,
    page: Page,
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
    database: str,
) -> None:
    if database == "forbidden":
        page.add_init_script("indexedDB.open = () => { throw new DOMException('', 'Security') }")
    else:
        other = page.context.new_page()
        other.goto(f"{api_only.url}/icon.svg")
        other.evaluate(BLOCK_DATABASE)
        page.bring_to_front()
    queue = open_page(api_only.url)
    queue.submit(tracks)
    expect(queue.job).to_contain_text("position 1")
    queue.page.reload()
    expect(queue.job).to_contain_text("position 1")
    expect(queue.history).to_contain_text("From a link")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)


def test_tracks_are_kept_if_the_browser_cannot_store_files(
    page: Page, queue: MusicLabPage, tracks: Tracks
) -> None:
    page.add_init_script(NO_FILES)
    queue.page.reload()
    queue.submit(tracks)
    queue.page.reload()
    for number, track in enumerate(tracks, 1):
        expect(queue.window(number)).to_be_visible(timeout=LOADED_WITHIN_MS)
        expect(queue.card(number)).to_contain_text(track.name)
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)


def test_missing_audio_output_is_reported(page: Page, queue: MusicLabPage, tracks: Tracks) -> None:
    page.add_init_script(NO_SOUND)
    page.clock.install()
    queue.page.reload()
    queue.choose(tracks)
    queue.card(1).get_by_role("button", name="Play window").click()
    page.clock.run_for(SOUND_WITHIN_MS)
    expect(queue.card(1)).to_contain_text("This browser cannot play audio.")
    expect(queue.card(1).get_by_role("button", name="Play window")).to_be_enabled()
