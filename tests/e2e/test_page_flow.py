"""The complete flow on the page, from two songs to new music."""

import math
from pathlib import Path

import sqlalchemy as sa
from playwright.sync_api import Locator, expect

from orchestrator.audio.window import SECONDS
from orchestrator.database import schema
from tests.e2e.musiclab_page import MusicLabPage, click_at, seconds
from tests.support.service import Service
from tests.support.signals import RATE, SEGMENT, decoded
from tests.support.songs import songs, whole

STAGES = ["Upload", "Queue", "Prepare", "Generate", "Save"]
RECORD_STAGES = """() => {
    window.stages = [];
    const note = () => {
        const now = document.querySelector("#stages [aria-current]");
        if (now && stages.at(-1) !== now.textContent) stages.push(now.textContent);
    };
    const changes = { subtree: true, attributes: true, attributeFilter: ["aria-current"] };
    new MutationObserver(note).observe(document.querySelector("#stages"), changes);
}"""

CURSOR = "it => parseFloat(it.style.left)"
TIME = "it => parseFloat(it.textContent.split(':')[1])"


def windows_of(service: Service, job_id: str) -> list[list[float]]:
    """The windows of a job as the API stored them."""
    engine = sa.create_engine(f"sqlite:///{service.settings.database_file}")
    chosen = sa.select(schema.jobs.c.windows).where(schema.jobs.c.id == job_id)
    with engine.connect() as connection:
        windows: list[list[float]] = connection.scalars(chosen).one()
    engine.dispose()
    return windows


def drag(window: Locator, pixels: float) -> None:
    """Drags the window horizontally with the mouse."""
    mouse, box = window.page.mouse, window.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + pixels, y, steps=5)
    mouse.up()


def expect_to_advance(clock: Locator, read: str) -> float:
    """Waits until the JavaScript expression `read` returns a larger number; returns that number."""
    before = clock.evaluate(read)
    later = f"([it, before]) => ({read})(it) > before"
    clock.page.wait_for_function(later, arg=[clock.element_handle(), before])
    return float(clock.evaluate(read))


def test_choose_generate_listen_download_delete(
    service: Service, lab: MusicLabPage, page_errors: list[str]
) -> None:
    page, (first, second, _) = lab.page, songs()
    expect(page.locator("#notice")).to_contain_text("No trained model is loaded")
    expect(lab.generate).to_be_disabled()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    lab.choose([first, second])
    for number, song in enumerate((first, second), 1):
        expect(lab.card(number)).to_contain_text(song.name)
        length = seconds(lab.card(number).locator(".length").inner_text())
        assert math.isclose(length, len(whole(song)) / RATE, abs_tol=1)

    shown = choose_windows(lab)
    play_window(lab)
    page.evaluate(RECORD_STAGES)
    lab.generate.click()
    expect(lab.job.get_by_role("heading")).to_be_focused()
    job_id = lab.job_id()
    assert windows_of(service, job_id) == [[start, start + SECONDS] for start in shown]
    lab.expect_music()
    stages = page.evaluate("stages")
    assert stages == [name for name in STAGES if name in stages], "the stages are out of order"
    assert {"Upload", "Generate"} <= set(stages)

    listen(lab, first)
    download(lab)
    lab.window(1).press("Home")
    lab.button("Choose other windows").click()
    expect(lab.start(1)).to_have_value("1:23.50")
    assert seconds(lab.start(2).input_value()) == shown[1]

    lab.button("Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect(lab.history).to_have_count(1)
    lab.delete()
    expect(lab.history).to_have_count(0)
    expect(lab.job).to_be_hidden()
    assert service.call("GET", f"/api/status/{job_id}").status_code == 404
    assert [url for url in requested if not url.startswith((service.url, "blob:"))] == []
    assert page_errors == []


def choose_windows(lab: MusicLabPage) -> list[float]:
    """Sets one window by its start, the other by keys and the mouse; returns their starts."""
    lab.start(1).fill("1:23.5")
    lab.start(1).press("Enter")
    expect(lab.window(1)).to_have_attribute("aria-valuetext", "1:23.50 to 1:39.50")
    for key in ("PageUp", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "ArrowLeft"):
        lab.window(2).press(key)
    expect(lab.start(2)).to_have_value("0:16.20")
    drag(lab.window(2), 60)
    expect(lab.start(2)).not_to_have_value("0:16.20")
    shown = [seconds(lab.start(number).input_value()) for number in (1, 2)]
    assert shown[0] == 83.5
    assert shown[1] > 17
    assert float(lab.window(2).get_attribute("aria-valuenow") or "") == shown[1]
    return shown


def play_window(lab: MusicLabPage) -> None:
    lab.card(1).get_by_role("button", name="Play window").click()
    expect_to_advance(lab.card(1).locator(".cursor"), CURSOR)
    lab.card(1).get_by_role("button", name="Stop").click()
    expect(lab.card(1).get_by_role("button", name="Play window")).to_be_visible()


def listen(lab: MusicLabPage, first: Path) -> None:
    """Plays the music, switches to the first song, and seeks."""
    time = lab.job.locator(".time")
    lab.button("Play").click()
    expect_to_advance(time, TIME)
    before = time.evaluate(TIME)
    lab.job.get_by_role("radio", name=first.name).check()
    after = expect_to_advance(time, TIME)
    assert before <= after < before + 5
    click_at(lab.job.locator(".waveform"), 0.75)
    sought = time.evaluate(TIME)
    assert 11.9 < sought < 15
    expect_to_advance(time, TIME)
    lab.button("Pause").click()
    expect(lab.button("Play")).to_be_visible()
    click_at(lab.job.locator(".spectrogram"), 0.25)
    assert 3.9 < time.evaluate(TIME) < 4.1


def download(lab: MusicLabPage) -> None:
    with lab.page.expect_download() as started:
        lab.job.get_by_role("link", name="Download").click()
    assert started.value.suggested_filename == "generated_music.wav"
    assert len(decoded(Path(started.value.path()).read_bytes())) == SEGMENT
