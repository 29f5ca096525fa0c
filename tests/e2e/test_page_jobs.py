"""Jobs outlive reloads, other tabs and their own music."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.musiclab_page import MusicLabPage
from tests.service import Service

Tracks = tuple[Path, Path]


def jobs_of(service: Service) -> set[str]:
    """The ids of all jobs that have files."""
    return {name.removeprefix("music_") for name in service.cached_jobs()}


def test_a_reload_takes_the_job_up_again(lab: MusicLabPage, tracks: Tracks) -> None:
    job_id = lab.submit(tracks)
    lab.page.reload()
    assert lab.job_id() == job_id
    lab.expect_music()
    for number, track in enumerate(tracks, 1):
        expect(lab.card(number)).to_contain_text(track.name)
        expect(lab.job).to_contain_text(track.name)
    lab.page.reload()
    lab.expect_music()
    expect(lab.history).to_have_count(1)
    lab.delete()
    expect(lab.history).to_have_count(0)
    lab.page.reload()
    expect(lab.card(1)).to_be_visible()
    expect(lab.job).to_be_hidden()


@pytest.mark.parametrize("accepted", [False, True])
def test_a_reload_in_mid_upload_ends_in_one_job(
    waiting_room: Service, queue: MusicLabPage, tracks: Tracks, accepted: bool
) -> None:
    before = jobs_of(waiting_room)
    keys: list[str] = []
    held: list[Route] = []

    def hold(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if accepted:
            route.fetch()  # whose answer does not come
        held.append(route)

    queue.page.route("**/api/generate", hold)
    queue.choose(tracks)
    queue.generate.click()
    expect(queue.job).to_contain_text("Uploading")
    while not held:
        queue.page.wait_for_timeout(20)
    queue.page.unroute("**/api/generate")
    with queue.page.expect_request("**/api/generate") as repeated:
        queue.page.reload()
    assert [repeated.value.headers["idempotency-key"]] == keys
    job_id = queue.job_id()
    assert jobs_of(waiting_room) - before == {job_id}
    expect(queue.job).to_contain_text("place")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)
    assert jobs_of(waiting_room) == before


def test_cancelling_ends_a_job_wherever_it_is(
    waiting_room: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    before = jobs_of(waiting_room)
    held: list[Route] = []
    queue.page.route("**/api/generate", lambda route: held.append(route))
    queue.choose(tracks)
    queue.generate.click()
    expect(queue.job).to_contain_text("Uploading")
    queue.button("Cancel").click()
    expect(queue.job).to_be_hidden()
    expect(queue.history).to_have_count(0)
    queue.page.unroute("**/api/generate")
    assert jobs_of(waiting_room) == before

    queue.generate.click()
    first = queue.job_id()
    expect(queue.job).to_contain_text("place 1")
    queue.generate.click()
    expect(queue.job).to_contain_text("place 2")
    expect(queue.history).to_have_count(2)
    second = queue.job_id()
    assert jobs_of(waiting_room) - before == {first, second}
    queue.history.last.click()
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(1)
    assert jobs_of(waiting_room) - before == {second}
    queue.history.click()
    expect(queue.job).to_contain_text("place 1")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)
    assert jobs_of(waiting_room) == before


def test_a_job_at_work_can_be_cancelled(
    service: Service, lab: MusicLabPage, tracks: Tracks
) -> None:
    job_id = lab.submit(tracks)
    expect(lab.job.locator("#stages [aria-current]")).to_have_text(re.compile("Prepare|Generate"))
    lab.button("Cancel").click()
    expect(lab.job).to_be_hidden()
    assert service.call("GET", f"/api/status/{job_id}").status_code == 404


def test_tabs_know_of_each_others_jobs(
    waiting_room: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    other = queue.in_another_tab()
    queue.submit(tracks)
    expect(other.history).to_have_count(1)
    expect(other.job).to_be_hidden()
    other.history.click()
    for tab in (queue, other):
        expect(tab.job).to_contain_text("place 1")
    queue.generate.click()
    expect(other.history).to_have_count(2)
    expect(queue.job).to_contain_text("place 2")
    expect(other.job).to_contain_text("place 1")
    other.button("Cancel").click()
    for tab in (queue, other):
        expect(tab.history).to_have_count(1)
    expect(queue.job).to_contain_text("place 1")
    queue.button("Cancel").click()
    expect(other.history).to_have_count(0)


def test_a_job_that_somebody_else_removed_goes_with_a_sentence(
    waiting_room: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    gone = f"The music of {tracks[0].name} + {tracks[1].name} was deleted, or has expired."
    for remove_while_away in (False, True):
        job_id = queue.submit(tracks)
        address = queue.page.url
        expect(queue.job).to_contain_text("place 1")
        if remove_while_away:
            queue.page.goto("about:blank")
        waiting_room.call("DELETE", f"/api/cleanup/{job_id}")
        if remove_while_away:
            queue.page.goto(address)
        expect(queue.page.locator("#gone")).to_have_text(gone)
        expect(queue.page.locator("#announcement")).to_have_text(gone)
        expect(queue.history).to_have_count(0)
        expect(queue.job).to_be_hidden()


def test_without_events_the_page_asks(lab: MusicLabPage, tracks: Tracks) -> None:
    lab.page.route("**/api/events/*", lambda route: route.abort())
    lab.submit(tracks)
    lab.expect_music()
