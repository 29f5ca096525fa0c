"""What the page may do, and what it weighs."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, Response, expect

from tests.e2e.musiclab_page import MusicLabPage
from tests.support.service import Service

MOST_BYTES = 60_000


def test_the_page_is_light_and_its_policy_strict(
    waiting_room: Service,
    page: Page,
    open_page: Callable[[str], MusicLabPage],
    tracks: tuple[Path, Path],
) -> None:
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    queue = open_page(waiting_room.url)
    expect(page.locator("#notice")).to_be_visible()
    assert {answer.url.removeprefix(waiting_room.url).split("/")[1] for answer in answers} == {
        *("", "assets", "icon.svg", "health")
    }
    weight = sum(answer.request.sizes()["responseBodySize"] for answer in answers)
    assert 30_000 < weight < MOST_BYTES

    policy = answers[0].headers["content-security-policy"]
    sources = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert sources["default-src"] == "'none'"
    assert sources["script-src"] == "'self'"
    assert sources["frame-ancestors"] == "'none'"
    for name, value in sources.items():
        known = [each for each in value.split() if each not in ("'self'", "'none'")]
        if name == "media-src":
            assert known == ["blob:"]  # a chosen file, whose length is asked
        elif name == "style-src":
            (own,) = known  # the hash of wavesurfer's, which is in force:
            assert own.startswith("'sha256-")
        else:
            assert known == [], f"{name} allows {known}"
    queue.choose(tracks)
    expect(queue.card(1).locator(".canvases canvas").first).to_have_css("position", "absolute")
