"""The page as its users see it: what they find on it, and do with it."""

import re
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Locator, Page, Route, expect

LOADED_WITHIN_MS = 20_000  # a song of seven minutes is decoded in one or two seconds
DONE_WITHIN_MS = 120_000

UPLOADS = "**/api/generate"

File = str | Path


class MusicLabPage:
    """One tab with the page.

    Attributes:
        page: the tab.
        generate: the button that starts a job.
        job: the part of the page that shows one.
        history: the jobs of this browser, a button each.
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
        """The same page in another tab of the same browser, behind this one."""
        address = self.page.url.partition("#")[0]
        other = MusicLabPage(self.page.context.new_page()).open(address)
        self.page.bring_to_front()  # what is behind draws rarely, and takes clicks slowly
        return other

    def card(self, number: int) -> Locator:
        return self.page.get_by_role("region", name=f"Track {number}", exact=True)

    def window(self, number: int) -> Locator:
        """The slider on the waveform."""
        return self.page.get_by_role(
            "slider", name=f"Track {number}: where the window starts, in seconds"
        )

    def start(self, number: int) -> Locator:
        """The field with the window's start."""
        return self.card(number).get_by_label("Window starts at")

    def refusal(self, number: int) -> Locator:
        """The sentence that says why a track was not taken."""
        return self.card(number).locator(".error .sentence")

    def put(self, number: int, file: File) -> None:
        """Choose a file, whatever becomes of it."""
        label = re.compile(f"^Track {number}: (choose a|change the) file$")
        self.card(number).get_by_label(label).set_input_files(file)

    def choose(self, tracks: Sequence[File]) -> None:
        """Choose both, and wait until they are taken."""
        for number, track in enumerate(tracks, 1):
            self.put(number, track)
        for number in (1, 2):
            expect(self.window(number)).to_be_visible(timeout=LOADED_WITHIN_MS)

    def submit(self, tracks: Sequence[File]) -> str:
        """Choose both and generate; returns the job's id."""
        self.choose(tracks)
        self.generate.click()
        return self.job_id()

    def job_id(self) -> str:
        """That of the job that is shown, as soon as it is accepted."""
        self.page.wait_for_url(re.compile("#[0-9a-f]{32}$"))
        return self.page.url.partition("#")[2]

    def hold(self, path: str) -> list[Route]:
        """Leave requests to that path unanswered until `release`; returns them as they come."""
        held: list[Route] = []
        self.page.route(path, lambda route: held.append(route))
        return held

    def release(self, path: str) -> None:
        """Let requests to that path through from now on; those that were held stay so."""
        self.page.unroute(path)

    def button(self, name: str) -> Locator:
        """A button of the job's."""
        return self.job.get_by_role("button", name=name, exact=True)

    def expect_music(self) -> None:
        """Wait until the job's music can be played."""
        download = self.job.get_by_role("link", name="Download")
        expect(download).to_be_visible(timeout=DONE_WITHIN_MS)
        expect(self.button("Play")).to_be_enabled(timeout=LOADED_WITHIN_MS)

    def delete(self) -> None:
        """Delete the music that is shown."""
        self.button("Delete").click()
        self.page.get_by_role("dialog").get_by_role("button", name="Delete").click()


def seconds(time: str) -> float:
    """Of what the page writes, as 1:23.50."""
    minutes, rest = time.split(":")
    return 60 * int(minutes) + float(rest)


def click_at(waveform: Locator, share: float) -> None:
    """Click at that share of its width."""
    box = waveform.bounding_box()
    assert box is not None
    waveform.click(position={"x": share * box["width"], "y": box["height"] / 2})
