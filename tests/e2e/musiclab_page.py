"""A page object for the MusicLab page: its elements, and the actions of its users."""

import re
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Locator, Page, Route, expect

LOADED_WITHIN_MS = 20_000  # a song of seven minutes is decoded in one or two seconds
DONE_WITHIN_MS = 120_000

UPLOADS = "**/api/generate"

File = str | Path


class MusicLabPage:
    """A browser tab that shows the page.

    Attributes:
        page: the tab.
        generate: the button that starts a job.
        job: the section that shows a job.
        history: the buttons that show the jobs of this browser.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.generate = page.get_by_role("button", name="Generate", exact=True)
        self.job = page.locator("#job")
        self.history = page.locator("#history li").get_by_role("button")

    def open(self, url: str) -> "MusicLabPage":
        self.page.goto(url)
        expect(self.page.get_by_role("heading", name="Track 1")).to_be_visible()
        return self

    def in_another_tab(self) -> "MusicLabPage":
        """Opens the same page in a background tab of the same browser."""
        address = self.page.url.partition("#")[0]
        other = MusicLabPage(self.page.context.new_page()).open(address)
        self.page.bring_to_front()  # a background tab draws rarely and handles clicks slowly
        return other

    def card(self, number: int) -> Locator:
        return self.page.get_by_role("region", name=f"Track {number}", exact=True)

    def window(self, number: int) -> Locator:
        """The slider on the waveform."""
        return self.page.get_by_role(
            "slider", name=f"Track {number}: start of the window, in seconds"
        )

    def start(self, number: int) -> Locator:
        """The field with the start of the window."""
        return self.card(number).get_by_label("Window starts at")

    def rejection(self, number: int) -> Locator:
        """The message that explains why a track was rejected."""
        return self.card(number).locator(".error .sentence")

    def put(self, number: int, file: File) -> None:
        """Chooses a file without waiting for it to be loaded or rejected."""
        label = re.compile(f"^Track {number}: (choose a|change the) file$")
        self.card(number).get_by_label(label).set_input_files(file)

    def choose(self, tracks: Sequence[File]) -> None:
        """Chooses both tracks and waits until they are loaded."""
        for number, track in enumerate(tracks, 1):
            self.put(number, track)
        for number in (1, 2):
            expect(self.window(number)).to_be_visible(timeout=LOADED_WITHIN_MS)

    def submit(self, tracks: Sequence[File]) -> str:
        """Chooses both tracks and generates; returns the id of the job."""
        self.choose(tracks)
        self.generate.click()
        return self.job_id()

    def job_id(self) -> str:
        """Waits until the shown job is accepted; returns its id."""
        self.page.wait_for_url(re.compile("#[0-9a-f]{32}$"))
        return self.page.url.partition("#")[2]

    def hold(self, path: str) -> list[Route]:
        """Holds requests to the path until `release`; returns the list that collects them."""
        held: list[Route] = []
        self.page.route(path, lambda route: held.append(route))
        return held

    def release(self, path: str) -> None:
        """Stops holding requests to the path; requests that are already held stay held."""
        self.page.unroute(path)

    def button(self, name: str) -> Locator:
        """A button in the section of the job."""
        return self.job.get_by_role("button", name=name, exact=True)

    def expect_music(self) -> None:
        """Waits until the music of the job can be played."""
        download = self.job.get_by_role("link", name="Download")
        expect(download).to_be_visible(timeout=DONE_WITHIN_MS)
        expect(self.button("Play")).to_be_enabled(timeout=LOADED_WITHIN_MS)

    def delete(self) -> None:
        """Deletes the shown music."""
        self.button("Delete").click()
        self.page.get_by_role("dialog").get_by_role("button", name="Delete").click()


def seconds(time: str) -> float:
    """Converts a time as the page shows it, such as 1:23.50, to seconds."""
    minutes, rest = time.split(":")
    return 60 * int(minutes) + float(rest)


def click_at(waveform: Locator, fraction: float) -> None:
    """Clicks at a fraction of the width of the waveform."""
    box = waveform.bounding_box()
    assert box is not None
    waveform.click(position={"x": fraction * box["width"], "y": box["height"] / 2})
