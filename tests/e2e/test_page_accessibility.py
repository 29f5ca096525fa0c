"""Accessibility of the page: keyboard, narrow screens, dark scheme and screen readers."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.musiclab_page import LOADED_WITHIN_MS, MusicLabPage
from tests.support.project import PROJECT

AXE = PROJECT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
RUN_AXE = """async () => {
    const options = { resultTypes: ["violations"], rules: { "target-size": { enabled: true } } };
    return (await axe.run(document, options)).violations;
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HEIGHT = 844
TABS = 40

Tracks = tuple[Path, Path]


@pytest.fixture
def page(page: Page) -> Page:
    """A page with axe preloaded, which the content security policy would otherwise block."""
    page.add_init_script(path=AXE)
    return page


def described(violation: dict[str, Any]) -> str:
    nodes = [f"{node['html']}: {node['failureSummary']}" for node in violation["nodes"]]
    return "\n".join([f"{violation['id']}: {violation['help']}", *nodes])


def expect_accessible(page: Page, state: str) -> None:
    """Asserts that axe finds no violations, wide and narrow, light and dark."""
    for width in (320, 390, 1280):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        assert page.evaluate(OVERFLOW) == 0, f"{state}: scrolls horizontally at {width} pixels"
        if width > 320:
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                violations = [described(each) for each in page.evaluate(RUN_AXE)]
                assert violations == [], f"{state}, {scheme}, {width} pixels: {violations}"


def test_choosing_and_waiting_are_accessible(
    queue: MusicLabPage, tracks: Tracks, tmp_path: Path
) -> None:
    expect_accessible(queue.page, "empty")
    bad = tmp_path / f"{'a very long name ' * 5}.txt"
    bad.write_text("no music")
    queue.put(1, bad)
    expect(queue.rejection(1)).to_be_visible()
    queue.put(2, tracks[1])
    expect(queue.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    expect_accessible(queue.page, "one rejected, one chosen")
    queue.submit(tracks)
    expect(queue.job).to_contain_text("position 1")
    expect_accessible(queue.page, "queued")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)


def test_listening_and_deleting_are_accessible(lab: MusicLabPage, tracks: Tracks) -> None:
    lab.submit(tracks)
    lab.expect_music()
    expect_accessible(lab.page, "result")
    lab.button("Delete").click()
    expect_accessible(lab.page, "dialog")
    lab.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(lab.history).to_have_count(0)


def tab_to(wanted: Locator) -> None:
    """Presses Tab until the element has the focus."""
    for _ in range(TABS):
        wanted.page.keyboard.press("Tab")
        if wanted.evaluate("it => it === it.getRootNode().activeElement"):
            return
    raise AssertionError(f"{wanted} is not reached by pressing Tab {TABS} times")


def test_everything_can_be_done_by_keyboard(lab: MusicLabPage, tracks: Tracks) -> None:
    keyboard = lab.page.keyboard
    lab.page.on("filechooser", lambda _: None)  # from now on, no native dialog opens
    for number, track in enumerate(tracks, 1):
        tab_to(lab.card(number).get_by_label(f"Track {number}: choose a file"))
        with lab.page.expect_file_chooser() as chooser:
            keyboard.press("Enter")
        chooser.value.set_files(track)
        expect(lab.window(number)).to_be_visible(timeout=LOADED_WITHIN_MS)
    lab.page.keyboard.press("Shift+Tab")
    tab_to(lab.window(2))
    keyboard.press("End")
    keyboard.press("ArrowLeft")
    tab_to(lab.card(2).get_by_role("button", name="Play window"))
    keyboard.press("Enter")
    expect(lab.card(2).get_by_role("button", name="Stop")).to_be_focused()
    tab_to(lab.generate)
    keyboard.press("Enter")
    lab.job_id()
    expect(lab.job).to_contain_text("0:23.0")
    lab.expect_music()
    expect(lab.job.get_by_role("heading")).to_be_focused()
    tab_to(lab.button("Play"))
    keyboard.press("Space")
    expect(lab.button("Pause")).to_be_focused()
    tab_to(lab.job.get_by_role("link", name="Download"))
    with lab.page.expect_download():
        keyboard.press("Enter")
    tab_to(lab.job.get_by_role("radio", name="New music"))
    keyboard.press("ArrowRight")
    expect(lab.job.get_by_role("radio", name=tracks[0].name)).to_be_checked()
    tab_to(lab.button("Delete"))
    keyboard.press("Enter")
    dialog = lab.page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep")).to_be_focused()
    keyboard.press("Escape")
    expect(lab.button("Delete")).to_be_focused()
    keyboard.press("Enter")
    tab_to(dialog.get_by_role("button", name="Delete"))
    keyboard.press("Enter")
    expect(lab.history).to_have_count(0)


def test_a_dialog_reopened_immediately_acts_on_its_own_choice(
    lab: MusicLabPage, tracks: Tracks
) -> None:
    """The close event of the first dialog arrives while the second one is open."""
    lab.submit(tracks)
    lab.expect_music()
    again = lab.button("Delete").element_handle()
    again.click()
    dialog = lab.page.get_by_role("dialog")
    keep = dialog.get_by_role("button", name="Keep")
    keep.evaluate("(keep, again) => { keep.click(); again.click(); }", again)
    dialog.get_by_role("button", name="Delete").click()
    expect(lab.history).to_have_count(0)
