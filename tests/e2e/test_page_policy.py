"""The content security policy of the page, and the size of its download."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, Response, expect

from tests.e2e.musiclab_page import MusicLabPage
from tests.support.service import Service

MAX_BYTES = 60_000


def test_the_page_is_small_and_its_policy_strict(
    api_only: Service,
    page: Page,
    open_page: Callable[[str], MusicLabPage],
    tracks: tuple[Path, Path],
) -> None:
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))
    queue = open_page(api_only.url)
    expect(page.locator("#notice")).to_be_visible()
    assert {response.url.removeprefix(api_only.url).split("/")[1] for response in responses} == {
        *("", "assets", "icon.svg", "health")
    }
    size = sum(response.request.sizes()["responseBodySize"] for response in responses)
    assert 30_000 < size < MAX_BYTES

    policy = responses[0].headers["content-security-policy"]
    sources = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert sources["default-src"] == "'none'"
    assert sources["script-src"] == "'self'"
    assert sources["frame-ancestors"] == "'none'"
    for name, value in sources.items():
        allowed = [each for each in value.split() if each not in ("'self'", "'none'")]
        if name == "media-src":
            assert allowed == ["blob:"]  # a chosen file, whose duration is read
        elif name == "style-src":
            (style,) = allowed  # the hash of the styles of wavesurfer, which are checked below
            assert style.startswith("'sha256-")
        else:
            assert allowed == [], f"{name} allows {allowed}"
    queue.choose(tracks)
    expect(queue.card(1).locator(".canvases canvas").first).to_have_css("position", "absolute")
