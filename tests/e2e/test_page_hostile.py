"""The page in the hands of the hasty and the unlucky."""

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
# Whoever opens it from now on waits for its deletion, and that for us.
BLOCK_DATABASE = """() => new Promise(resolve => {
    const opening = indexedDB.open("musiclab", 1);
    opening.onsuccess = () => {
        window.held = opening.result;
        indexedDB.deleteDatabase("musiclab").onblocked = resolve;
    };
})"""
# As in Safari's private windows.
NO_FILES = """
const put = IDBObjectStore.prototype.put;
IDBObjectStore.prototype.put = function (value, ...key) {
    if ([value, ...Object.values(value)].some(part => part instanceof Blob)) {
        throw new DOMException("Error preparing Blob/File data", "UnknownError");
    }
    return put.call(this, value, ...key);
};
"""
# As in Firefox on a machine without sound.
NO_SOUND = """
Object.defineProperty(BaseAudioContext.prototype, "state", { get: () => "suspended" });
AudioContext.prototype.resume = () => new Promise(() => {});
"""
SOUND_WITHIN_MS = 5_000


def test_a_double_click_makes_one_job(
    waiting_room: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    before = jobs_of(waiting_room)
    queue.choose(tracks)
    queue.generate.dblclick(delay=150)
    expect(queue.job).to_contain_text("place 1")
    expect(queue.history).to_have_count(1)
    queue.button("Cancel").dblclick()
    expect(queue.history).to_have_count(0)
    assert jobs_of(waiting_room) == before


def test_other_files_are_chosen_at_any_time(
    waiting_room: Service, queue: MusicLabPage, tracks: Tracks, tmp_path: Path
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
    expect(queue.job).to_contain_text("place 1")
    queue.put(1, tracks[1])
    expect(queue.card(1)).to_contain_text(tracks[1].name)
    expect(queue.job).to_contain_text(f"{short.name}, 0:00.00 to 0:05.00")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)
    expect(queue.card(1)).to_contain_text(tracks[1].name)
    expect(queue.generate).to_be_enabled()


def test_what_is_no_time_is_told(queue: MusicLabPage, tracks: Tracks) -> None:
    queue.choose(tracks)
    queue.start(1).fill("7")
    queue.start(1).press("Enter")
    queue.start(1).fill("soon")
    queue.start(1).press("Enter")
    expect(queue.start(1)).to_have_attribute("aria-invalid", "true")
    expect(queue.card(1)).to_contain_text("soon is not a time.")
    expect(queue.generate).to_be_disabled()
    expect(queue.page.locator("#start")).to_contain_text("Say where the window starts.")
    expect(queue.window(1)).to_have_attribute("aria-valuenow", "7")
    queue.start(1).fill("1:00")
    queue.start(1).press("Enter")
    expect(queue.start(1)).to_have_attribute("aria-invalid", "false")
    expect(queue.card(1)).to_contain_text("The window starts at 0:24.0")
    expect(queue.generate).to_be_enabled()


def test_files_are_dropped(queue: MusicLabPage) -> None:
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


def test_music_is_deleted_while_it_loads_or_cannot_be_loaded(
    lab: MusicLabPage, tracks: Tracks
) -> None:
    held = lab.hold("**/api/download/*")
    lab.submit(tracks)
    expect(lab.button("Delete")).to_be_visible(timeout=DONE_WITHIN_MS)
    expect(lab.button("Play")).to_be_disabled()
    place = lab.button("Delete").evaluate("it => it.offsetTop")
    held[0].abort()
    expect(lab.job.get_by_role("alert")).to_contain_text("MusicLab cannot be reached.")
    lab.release("**/api/download/*")
    lab.button("Try again").click()
    lab.expect_music()
    moved = lab.button("Delete").evaluate("it => it.offsetTop") - place
    assert moved == 0, "it is elsewhere once the music is there"
    lab.page.route("**/api/cleanup/*", lambda route: route.abort())
    lab.delete()
    expect(lab.job.get_by_role("alert")).to_contain_text("MusicLab cannot be reached.")
    lab.page.unroute("**/api/cleanup/*")
    lab.button("Try again").click()
    expect(lab.history).to_have_count(0)


def test_the_end_of_a_job_is_told_to_those_who_look_elsewhere(
    lab: MusicLabPage, tracks: Tracks
) -> None:
    lab.submit(tracks)
    lab.page.evaluate(HIDE, True)
    expect(lab.page).to_have_title(re.compile("^Done .+ MusicLab$"), timeout=DONE_WITHIN_MS)
    lab.page.evaluate(HIDE, False)
    expect(lab.page).to_have_title("MusicLab")
    expect(lab.page.locator("#announcement")).to_have_text("Your music is ready.")
    lab.expect_music()


def test_an_address_shows_the_job_in_any_browser(
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
    expect(other.button("Again with other windows")).to_be_hidden()
    other.button("Play").click()
    expect(other.button("Pause")).to_be_visible()
    other.delete()
    expect(other.history).to_have_count(0)
    expect(other.button("Pause")).to_be_hidden()
    context.close()
    lab.page.reload()
    expect(lab.page.locator("#gone")).to_contain_text("was deleted, or has expired.")
    expect(lab.history).to_have_count(0)


def test_one_thing_plays_at_a_time(queue: MusicLabPage, tracks: Tracks) -> None:
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


def test_the_window_is_moved_where_it_is_enlarged(queue: MusicLabPage, tracks: Tracks) -> None:
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


def test_a_track_too_long_to_be_drawn_is_taken(
    queue: MusicLabPage, tracks: Tracks, tmp_path: Path
) -> None:
    long = tmp_path / "long.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "1300", long)
    queue.put(1, long)
    expect(queue.card(1)).to_contain_text("This track is too long to be drawn and played here")
    expect(queue.card(1).locator(".length")).to_have_text("21:40")
    queue.put(2, tracks[1])
    queue.start(1).fill("20:00")
    queue.start(1).press("Enter")
    expect(queue.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    queue.generate.click()
    expect(queue.job).to_contain_text("place 1")
    expect(queue.job).to_contain_text("long.flac, 20:00.00 to 20:16.00")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)


@pytest.mark.parametrize("database", ["forbidden", "silent"])
def test_the_page_works_where_nothing_may_be_kept(
    waiting_room: Service,
    page: Page,
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
    database: str,
) -> None:
    if database == "forbidden":
        page.add_init_script("indexedDB.open = () => { throw new DOMException('', 'Security') }")
    else:
        other = page.context.new_page()
        other.goto(f"{waiting_room.url}/icon.svg")
        other.evaluate(BLOCK_DATABASE)
        page.bring_to_front()
    queue = open_page(waiting_room.url)
    queue.submit(tracks)
    expect(queue.job).to_contain_text("place 1")
    queue.page.reload()
    expect(queue.job).to_contain_text("place 1")
    expect(queue.history).to_contain_text("From a link")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)


def test_tracks_are_kept_where_no_file_may_be(
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


def test_what_cannot_be_heard_is_told(page: Page, queue: MusicLabPage, tracks: Tracks) -> None:
    page.add_init_script(NO_SOUND)
    page.clock.install()
    queue.page.reload()
    queue.choose(tracks)
    queue.card(1).get_by_role("button", name="Play window").click()
    page.clock.run_for(SOUND_WITHIN_MS)
    expect(queue.card(1)).to_contain_text("This browser gets no sound out.")
    expect(queue.card(1).get_by_role("button", name="Play window")).to_be_enabled()
