"""Jobs on the page: reloads, uploads, cancellation, failures and several tabs."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from orchestrator.database.schema import jobs
from orchestrator.settings import Settings
from orchestrator.worker.worker import MAX_DEATHS
from tests.e2e.musiclab_page import LOADED_WITHIN_MS, UPLOADS, MusicLabPage
from tests.support.postgres import execute
from tests.support.service import TIDY_WITHIN_S, Service, running
from tests.support.tracks import ffmpeg

Tracks = tuple[Path, Path]

# The settings with which a worker finds the model server of another MusicLab.
MODEL_SERVER = ("run_dir", "inference_port", "management_port", "metrics_port")


def jobs_of(service: Service) -> set[str]:
    """The ids of all jobs that have files."""
    return {name.removeprefix("music_") for name in service.cached_jobs()}


def test_a_job_continues_after_a_reload(lab: MusicLabPage, tracks: Tracks) -> None:
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
def test_a_reload_during_an_upload_creates_one_job(
    api_only: Service, queue: MusicLabPage, tracks: Tracks, accepted: bool
) -> None:
    before = jobs_of(api_only)
    held = queue.hold(UPLOADS)
    queue.choose(tracks)
    queue.generate.click()
    expect(queue.job).to_contain_text("Uploading")
    while not held:
        queue.page.wait_for_timeout(20)
    (upload,) = held
    if accepted:
        upload.fetch()  # the response does not reach the page
    queue.release(UPLOADS)
    with queue.page.expect_request(UPLOADS) as repeated:
        queue.page.reload()
    keys = [each.headers["idempotency-key"] for each in (upload.request, repeated.value)]
    assert keys[0] == keys[1]
    job_id = queue.job_id()
    assert jobs_of(api_only) - before == {job_id}
    expect(queue.job).to_contain_text("position")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)
    assert jobs_of(api_only) == before


def test_uploading_and_queued_jobs_can_be_cancelled(
    api_only: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    before = jobs_of(api_only)
    queue.hold(UPLOADS)
    queue.choose(tracks)
    queue.generate.click()
    expect(queue.job).to_contain_text("Uploading")
    queue.button("Cancel").click()
    expect(queue.job).to_be_hidden()
    expect(queue.history).to_have_count(0)
    queue.release(UPLOADS)
    assert jobs_of(api_only) == before

    queue.generate.click()
    first = queue.job_id()
    expect(queue.job).to_contain_text("position 1")
    queue.generate.click()
    expect(queue.job).to_contain_text("position 2")
    expect(queue.history).to_have_count(2)
    second = queue.job_id()
    assert jobs_of(api_only) - before == {first, second}
    queue.history.last.click()
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(1)
    assert jobs_of(api_only) - before == {second}
    queue.history.click()
    expect(queue.job).to_contain_text("position 1")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)
    assert jobs_of(api_only) == before


def test_a_slow_upload_shows_its_progress_and_can_be_cancelled(
    api_only: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    before = jobs_of(api_only)
    queue.choose(tracks)
    network = queue.page.context.new_cdp_session(queue.page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 50_000}
    network.send("Network.emulateNetworkConditions", slow)
    queue.generate.click()
    queue.page.wait_for_function("() => document.querySelector('progress').value > 10")
    expect(queue.job).to_contain_text("Uploading")
    expect(queue.history).to_contain_text("uploading")
    queue.button("Cancel").click()
    expect(queue.history).to_have_count(0)
    deadline = time.monotonic() + TIDY_WITHIN_S
    while jobs_of(api_only) != before:
        assert time.monotonic() < deadline, f"an upload remains in {api_only.cached_jobs()}"
        time.sleep(0.05)


def test_another_tab_can_cancel_or_continue_an_upload(
    api_only: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    before = jobs_of(api_only)
    other = queue.in_another_tab()
    queue.hold(UPLOADS)
    queue.choose(tracks)
    queue.generate.click()
    expect(queue.job).to_contain_text("Uploading")
    other.history.click()
    expect(other.job).to_contain_text("Another tab is uploading the tracks")
    other.button("Cancel").click()
    expect(queue.job).to_be_hidden()

    queue.generate.click()
    expect(queue.job).to_contain_text("Uploading")
    other.history.click()
    expect(other.job).to_contain_text("Another tab is uploading the tracks")
    queue.page.close()
    expect(other.job).to_contain_text("position 1")
    assert jobs_of(api_only) - before == {other.job_id()}
    other.button("Cancel").click()
    expect(other.history).to_have_count(0)


def test_a_running_job_can_be_cancelled(
    service: Service, lab: MusicLabPage, tracks: Tracks
) -> None:
    job_id = lab.submit(tracks)
    expect(lab.job.locator("#stages [aria-current]")).to_have_text(re.compile("Prepare|Generate"))
    lab.button("Cancel").click()
    expect(lab.job).to_be_hidden()
    assert service.call("GET", f"/api/status/{job_id}").status_code == 404


def expect_failure(lab: MusicLabPage, sentence: str, advice: str) -> None:
    """Waits until the page shows the failure of the job and marks it in the history."""
    expect(lab.job.get_by_role("heading")).to_have_text("Generation failed")
    expect(lab.job.get_by_role("alert").locator(".sentence")).to_have_text(sentence)
    expect(lab.job.get_by_role("alert").locator(".advice")).to_have_text(advice)
    expect(lab.button("Remove")).to_be_visible()
    expect(lab.history).to_contain_text("failed")


def test_a_truncated_track_fails_while_running_and_succeeds_with_another_window(
    service: Service, lab: MusicLabPage, tracks: Tracks, tmp_path: Path
) -> None:
    broken = tmp_path / "truncated.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "1300", broken)
    with broken.open("r+b") as file:
        file.truncate(broken.stat().st_size // 2)  # its header still declares 1300 s
    lab.put(1, broken)
    lab.put(2, tracks[1])
    expect(lab.card(1).locator(".length")).to_have_text("21:40")
    lab.start(1).fill("20:00")
    lab.start(1).press("Enter")
    expect(lab.window(2)).to_be_visible(timeout=LOADED_WITHIN_MS)
    lab.generate.click()
    job = service.finished(lab.job_id())
    assert (job["status"], job["error_code"]) == ("failed", "window_past_end")
    assert job["message"].startswith(
        "track1: the window starts past the end of the track, which is "
    )
    advice = "Move the window to an earlier position, then generate again."
    expect_failure(lab, job["message"], advice)
    expect(lab.page.locator("#announcement")).to_have_text("Your music could not be generated.")
    lab.page.reload()
    expect_failure(lab, job["message"], advice)
    expect(lab.button("Try again")).to_be_hidden()

    lab.start(1).fill("1:00")
    lab.button("Choose other windows").click()
    expect(lab.start(1)).to_have_value("20:00.00")
    lab.start(1).fill("1:00")
    lab.start(1).press("Enter")
    lab.generate.click()
    lab.expect_music()
    expect(lab.history.first).to_contain_text("ready")
    expect(lab.history.last).to_contain_text("failed")


def test_a_failed_job_can_be_retried(
    service: Service,
    api_only_settings: Callable[..., Settings],
    open_page: Callable[[str], MusicLabPage],
    tracks: Tracks,
) -> None:
    settings, theirs = api_only_settings(), service.settings
    model = {name: getattr(theirs, name) for name in MODEL_SERVER}
    with running(settings, "api"):
        lab = open_page(Service(settings).url)
        failed = lab.submit(tracks)
        # As if every worker that claimed it had been killed.
        execute(settings, jobs.update().values(deaths=MAX_DEATHS + 1))
        with running(settings.model_copy(update=model), "worker"):
            sentence = f"Given up: {MAX_DEATHS + 1} processes died while they ran it"
            advice = "Try again. If the problem persists, contact your MusicLab administrator."
            expect_failure(lab, sentence, advice)
            lab.page.reload()
            expect_failure(lab, sentence, advice)
            lab.button("Try again").click()
            expect(lab.history).to_have_count(2)
            lab.expect_music()
            assert lab.job_id() != failed
            expect(lab.history.first).to_contain_text("ready")
            expect(lab.history.last).to_contain_text("failed")
            lab.history.last.click()
            lab.button("Remove").click()
            expect(lab.history).to_have_count(1)


def test_tabs_show_each_others_jobs(api_only: Service, queue: MusicLabPage, tracks: Tracks) -> None:
    other = queue.in_another_tab()
    queue.submit(tracks)
    expect(other.history).to_have_count(1)
    expect(other.job).to_be_hidden()
    other.history.click()
    for tab in (queue, other):
        expect(tab.job).to_contain_text("position 1")
    queue.generate.click()
    expect(other.history).to_have_count(2)
    expect(queue.job).to_contain_text("position 2")
    expect(other.job).to_contain_text("position 1")
    other.page.bring_to_front()
    other.button("Cancel").click()
    for tab in (queue, other):
        expect(tab.history).to_have_count(1)
    expect(queue.job).to_contain_text("position 1")
    queue.button("Cancel").click()
    expect(other.history).to_have_count(0)


def test_a_job_deleted_elsewhere_is_removed_with_a_message(
    api_only: Service, queue: MusicLabPage, tracks: Tracks
) -> None:
    gone = f"The music from {tracks[0].name} + {tracks[1].name} was deleted or has expired."
    for remove_while_closed in (False, True):
        job_id = queue.submit(tracks)
        address = queue.page.url
        expect(queue.job).to_contain_text("position 1")
        if remove_while_closed:
            queue.page.goto("about:blank")
        api_only.call("DELETE", f"/api/cleanup/{job_id}")
        if remove_while_closed:
            queue.page.goto(address)
        expect(queue.page.locator("#gone")).to_have_text(gone)
        expect(queue.page.locator("#announcement")).to_have_text(gone)
        expect(queue.history).to_have_count(0)
        expect(queue.job).to_be_hidden()


def test_the_page_polls_without_an_event_stream(lab: MusicLabPage, tracks: Tracks) -> None:
    lab.page.route("**/api/events/*", lambda route: route.abort())
    lab.submit(tracks)
    lab.expect_music()
