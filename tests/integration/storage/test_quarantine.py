"""Files that are set aside for a while, and come back."""

import time

from orchestrator.storage.base import GENERATED
from tests.support.storage import OpenHost, kept


async def test_files_go_into_quarantine_and_come_back(host: OpenHost) -> None:
    here, there = host("here"), host("there")
    for job_id in ("a", "b"):
        await kept(here, job_id, track1_mp3=job_id.encode(), generated_wav=b"music")
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


async def test_what_comes_later_joins_what_is_in_quarantine(host: OpenHost) -> None:
    files = host("here")
    await kept(files, "a", track1_mp3=b"one", track2_mp3=b"two")
    await files.quarantine("a")
    await kept(files, "a", track2_mp3=b"new", generated_wav=b"music")
    await files.quarantine("a")
    await files.restore("a")
    assert await files.list_names("a") == {"track1.mp3", "track2.mp3", GENERATED}
    assert await files.read("a", "track2.mp3") == b"new"


async def test_a_workspace_alone_is_not_quarantined(bucket_host: OpenHost) -> None:
    files = bucket_host("here")
    await files.create("a")
    await files.quarantine("a")
    assert await files.job_ids() == set()
    assert await files.quarantined() == {}
