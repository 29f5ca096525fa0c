"""Quarantined files, which can be restored or discarded."""

import time

from orchestrator.storage.base import GENERATED
from tests.support.storage import OpenHost, persist_job


async def test_quarantined_files_can_be_restored_or_discarded(open_host: OpenHost) -> None:
    here, there = open_host("here"), open_host("there")
    for job_id in ("a", "b"):
        await persist_job(here, job_id, track1_mp3=job_id.encode(), generated_wav=b"music")
    assert await there.quarantined() == {}
    await there.quarantine("a")
    await here.release_workspace("a")
    assert await there.job_ids() == {"b"}
    (since,) = (await there.quarantined()).values()
    assert abs(time.time() - since) < 60
    await here.restore("a")
    assert await there.job_ids() == {"a", "b"}
    assert await there.list_names("a") == {"track1.mp3", GENERATED}
    assert await there.read("a", "track1.mp3") == b"a"
    assert await there.quarantined() == {}
    await there.quarantine("b")
    await there.discard("b")
    assert await there.quarantined() == {}
    await here.release_workspace("b")
    assert await there.job_ids() == {"a"}
    assert await there.list_names("b") == set()


async def test_later_files_are_added_to_those_in_quarantine(open_host: OpenHost) -> None:
    files = open_host("here")
    await persist_job(files, "a", track1_mp3=b"one", track2_mp3=b"two")
    await files.quarantine("a")
    await persist_job(files, "a", track2_mp3=b"new", generated_wav=b"music")
    await files.quarantine("a")
    await files.restore("a")
    assert await files.list_names("a") == {"track1.mp3", "track2.mp3", GENERATED}
    assert await files.read("a", "track2.mp3") == b"new"


async def test_a_workspace_without_stored_files_is_not_quarantined(
    open_bucket_host: OpenHost,
) -> None:
    files = open_bucket_host("here")
    await files.create("a")
    await files.quarantine("a")
    assert await files.job_ids() == set()
    assert await files.quarantined() == {}
