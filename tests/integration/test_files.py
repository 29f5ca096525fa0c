"""The files of jobs, in a folder and in a bucket of a real S3 server alike."""

import asyncio
import errno
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.errors import SettingsError, StorageUnavailableError
from orchestrator.storage import open_storage
from orchestrator.storage import s3 as files_module
from orchestrator.storage.base import (
    GENERATED,
    MARKER,
    JobStorage,
    part_name,
    upload_name,
    window_name,
)
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.s3 import S3Storage
from tests.support.s3 import S3Server

AWAY_WITHIN_S = 30
HASTE = 4  # by which all times of a bucket that is away are divided, the one above included
TIMES = ("CONNECT_TIMEOUT", "READ_TIMEOUT", "RETRY_FOR", "FIRST_BACKOFF", "LONGEST_BACKOFF")
UPLOAD = upload_name(1, ".mp3")

OpenHost = Callable[[str], JobStorage]


@pytest.fixture(params=["folder", "bucket"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> OpenHost:
    """Opens the same files as a host of that name does."""
    if request.param == "folder":
        return lambda _: LocalStorage(tmp_path / "cache")
    opens: OpenHost = request.getfixturevalue("bucket_host")
    return opens


@pytest.fixture
def bucket_host(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenHost:
    """Opens the files in one new bucket as a host of that name does."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = s3.create_bucket(f"bucket-{uuid.uuid4().hex}") + "/some/prefix"
    return lambda name: open_storage(url, tmp_path / "no-cache", tmp_path / name)


async def kept(files: JobStorage, job_id: str, **contents: bytes) -> None:
    """A job with these files; underscores in the names stand for dots."""
    await files.create(job_id)
    names = [name.replace("_", ".") for name in contents]
    for name, content in zip(names, contents.values(), strict=True):
        (files.workspace(job_id) / name).write_bytes(content)
    await files.keep(job_id, *names)


async def lacks(attempt: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(FileNotFoundError):
        await attempt


def test_names_of_uploads_windows_and_parts_differ() -> None:
    names = {upload_name(1, ".wav"), window_name(1), window_name(2), part_name(1), part_name(11)}
    assert len(names | {GENERATED}) == 6


def test_what_one_host_keeps_every_host_has(host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = host("here"), host("there")
        big = os.urandom(12_000_000)  # uploaded in parts, the last one smaller
        await kept(here, "a", track1_mp3=big, track2_mp3=b"two")
        await kept(here, "ab", track1_mp3=b"of another job")
        assert await there.names("a") == {"track1.mp3", "track2.mp3"}
        assert await there.job_ids() == {"a", "ab"}
        path = await there.fetch("a", "track1.mp3")
        assert path == there.workspace("a") / "track1.mp3"
        assert path.read_bytes() == big
        assert await there.read("a", "track2.mp3") == b"two"
        assert (await here.fetch("a", "track2.mp3")).read_bytes() == b"two"

    asyncio.run(scenario())


def test_a_file_that_is_not_there_is_told_of(host: OpenHost) -> None:
    async def scenario() -> None:
        files = host("here")
        assert await files.names("a") == set()
        assert await files.job_ids() == set()
        await lacks(files.fetch("a", UPLOAD))
        await files.create("a")
        assert await files.names("a") == set()
        await lacks(files.keep("a", UPLOAD))
        await lacks(files.fetch("a", UPLOAD))
        await lacks(files.read("a", UPLOAD))
        await lacks(files.rename("a", UPLOAD, GENERATED))
        await lacks(files.copy("a", UPLOAD, "b"))
        await files.delete("a", UPLOAD, GENERATED)
        await files.remove("b")
        assert await files.job_ids() == {"a"}

    asyncio.run(scenario())


def test_a_rename_takes_the_place_of_what_was_there(host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = host("here"), host("there")
        await kept(here, "a", generated_wav=b"old", generated_7_part=b"new")
        assert (await there.fetch("a", GENERATED)).read_bytes() == b"old"
        await there.rename("a", part_name(7), GENERATED)
        assert await here.names("a") == {GENERATED}
        assert await here.read("a", GENERATED) == b"new"
        assert (await there.fetch("a", GENERATED)).read_bytes() == b"new"
        await lacks(there.fetch("a", part_name(7)))

    asyncio.run(scenario())


def test_a_copy_outlives_the_job_it_came_from(host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = host("here"), host("there")
        await kept(here, "a", track1_mp3=b"one")
        for _ in range(2):  # a repetition is no error
            await there.copy("a", UPLOAD, "b")
        assert there.workspace("b").is_dir()
        await here.remove("a")
        assert await here.job_ids() >= {"b"}
        assert await here.names("b") == {UPLOAD}
        assert (await here.fetch("b", UPLOAD)).read_bytes() == b"one"

    asyncio.run(scenario())


def test_a_copy_is_made_where_links_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    async def scenario() -> None:
        files = LocalStorage(tmp_path)
        await kept(files, "a", track1_mp3=b"one")
        monkeypatch.setattr(os, "link", no_links)
        await files.copy("a", UPLOAD, "b")
        assert await files.read("b", UPLOAD) == b"one"
        assert [path.name for path in files.workspace("b").iterdir()] == [UPLOAD]

    asyncio.run(scenario())


def test_deleted_files_are_gone_everywhere_and_others_stay(host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = host("here"), host("there")
        await kept(here, "a", track1_mp3=b"one", track2_mp3=b"two", generated_wav=b"music")
        await here.delete("a", "track1.mp3", "track2.mp3", "window1.wav")
        assert await there.names("a") == {GENERATED}
        await lacks(here.fetch("a", "track1.mp3"))
        await lacks(there.fetch("a", "track1.mp3"))
        await here.delete("a")
        assert await there.read("a", GENERATED) == b"music"

    asyncio.run(scenario())


def test_a_removed_job_leaves_nothing(host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = host("here"), host("there")
        await kept(here, "a", track1_mp3=b"one", track2_mp3=b"two")
        await kept(here, "b", track1_mp3=b"one")
        await there.fetch("a", UPLOAD)
        await there.remove("a")
        assert not there.workspace("a").exists()
        assert await there.job_ids() == {"b"}
        assert await here.names("a") == set()
        await here.remove("a")
        assert await here.job_ids() == {"b"}

    asyncio.run(scenario())


def test_removing_catches_what_is_written_meanwhile(tmp_path: Path) -> None:
    async def write(folder: Path) -> None:
        with pytest.raises(FileNotFoundError):
            for count in range(10_000):
                await asyncio.to_thread((folder / f"track{count}.mp3").write_bytes, b"late")

    async def scenario() -> None:
        files = LocalStorage(tmp_path)
        await files.create("a")
        for count in range(2000):
            (files.workspace("a") / f"old{count}").touch()
        await asyncio.gather(write(files.workspace("a")), files.remove("a"))
        assert not files.workspace("a").exists()

    asyncio.run(scenario())


def test_the_scratch_of_a_host_is_released_alone(bucket_host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = bucket_host("here"), bucket_host("there")
        await kept(here, "a", track1_mp3=b"one")
        await here.create("only here")
        assert await here.job_ids() == {"a", "only here"}
        assert await there.job_ids() == {"a"}
        await here.release("a")
        await here.release("only here")
        assert not here.workspace("a").exists()
        assert await here.job_ids() == {"a"}
        assert (await here.fetch("a", UPLOAD)).read_bytes() == b"one"

    asyncio.run(scenario())


def test_releasing_the_folder_of_a_job_keeps_its_files(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = LocalStorage(tmp_path)
        await kept(files, "a", track1_mp3=b"one")
        await files.release("a")
        assert await files.read("a", UPLOAD) == b"one"

    asyncio.run(scenario())


def test_a_download_given_up_leaves_no_piece(bucket_host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = bucket_host("here"), bucket_host("there")
        await kept(here, "a", track1_mp3=os.urandom(20_000_000))
        fetching = asyncio.create_task(there.fetch("a", UPLOAD))
        folder = there.workspace("a")
        while not folder.exists() or not list(folder.iterdir()):
            assert not fetching.done(), "the download was over before it could be cancelled"
            await asyncio.sleep(0)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert list(folder.iterdir()) == []
        assert (await there.fetch("a", UPLOAD)).stat().st_size == 20_000_000

    asyncio.run(scenario())


def test_files_belong_to_the_database_that_was_first(host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = host("here"), host("there")
        await here.claim("a" * 32)
        await kept(here, "a", track1_mp3=b"one")
        for _ in range(2):
            with pytest.raises(SettingsError, match=REFUSED):
                await there.claim("b" * 32)
            await there.claim("a" * 32)
        assert await there.read("a", "track1.mp3") == b"one"
        assert await here.job_ids() == {"a"}

    asyncio.run(scenario())


REFUSED = (
    r"MUSICLAB_(CACHE|FILES_URL) is .*, which holds the files of another database; set it to "
    r".*delete .*\.musiclab-database"
)


def test_files_that_are_claimed_at_once_belong_to_one(host: OpenHost) -> None:
    async def scenario() -> None:
        claims = (host(f"host{each}").claim(str(each) * 32) for each in range(8))
        refused = await asyncio.gather(*claims, return_exceptions=True)
        assert sum(each is None for each in refused) == 1, refused
        assert sum(isinstance(each, SettingsError) for each in refused) == 7

    asyncio.run(scenario())


def test_a_marker_needs_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    files = LocalStorage(tmp_path / "cache")
    asyncio.run(files.claim("a" * 32))
    with pytest.raises(SettingsError, match=REFUSED):
        asyncio.run(files.claim("b" * 32))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [MARKER]


def test_files_go_into_quarantine_and_come_back(host: OpenHost) -> None:
    async def scenario() -> None:
        here, there = host("here"), host("there")
        for job_id in ("a", "b"):
            await kept(here, job_id, track1_mp3=job_id.encode(), generated_wav=b"music")
        assert await there.quarantined() == {}
        await there.quarantine("a")
        await here.release("a")
        assert await there.job_ids() == {"b"}
        (since,) = (await there.quarantined()).values()
        assert abs(time.time() - since) < 60
        await here.restore("a")
        assert await there.job_ids() == {"a", "b"}
        assert await there.names("a") == {"track1.mp3", GENERATED}
        assert await there.read("a", "track1.mp3") == b"a"
        assert await there.quarantined() == {}
        await there.quarantine("b")
        await there.discard("b")
        assert await there.quarantined() == {}
        await here.release("b")
        assert await there.job_ids() == {"a"}
        assert await there.names("b") == set()

    asyncio.run(scenario())


def test_what_comes_later_joins_what_is_in_quarantine(host: OpenHost) -> None:
    async def scenario() -> None:
        files = host("here")
        await kept(files, "a", track1_mp3=b"one", track2_mp3=b"two")
        await files.quarantine("a")
        await kept(files, "a", track2_mp3=b"new", generated_wav=b"music")
        await files.quarantine("a")
        await files.restore("a")
        assert await files.names("a") == {"track1.mp3", "track2.mp3", GENERATED}
        assert await files.read("a", "track2.mp3") == b"new"

    asyncio.run(scenario())


def test_a_workspace_alone_is_not_quarantined(bucket_host: OpenHost) -> None:
    async def scenario() -> None:
        files = bucket_host("here")
        await files.create("a")
        await files.quarantine("a")
        assert await files.job_ids() == set()
        assert await files.quarantined() == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["", ".", "..", "../b", "a/b", ".hidden", "/etc/passwd"])
def test_only_plain_names_are_taken(host: OpenHost, name: str) -> None:
    files = host("here")
    for attempt in (
        files.keep("a", name),
        files.fetch("a", name),
        files.read("a", name),
        files.rename("a", GENERATED, name),
        files.copy("a", name, "b"),
        files.delete("a", name),
    ):
        with pytest.raises(ValueError, match="not a plain file name"):
            asyncio.run(attempt)
    with pytest.raises(ValueError, match="not a plain file name"):
        files.workspace("../../a")


def test_the_disk_is_that_of_the_workspaces(host: OpenHost) -> None:
    files = host("here")
    disk = asyncio.run(files.disk())
    usage = psutil.disk_usage(str(files.workspace("a").parent))
    assert disk.size == usage.total
    assert disk.free == pytest.approx(usage.free, abs=0.05 * usage.total)


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    files = LocalStorage(tmp_path / "cache")
    with pytest.raises(StorageUnavailableError, match=r"a folder for job a failed: .*[Dd]irectory"):
        asyncio.run(files.create("a"))


def away_after(files: JobStorage) -> list[float]:
    """How many seconds each operation takes to find out that the bucket is away."""

    async def one(attempt: Coroutine[Any, Any, object]) -> float:
        started = time.monotonic()
        with pytest.raises(StorageUnavailableError, match=r"of job|that have files"):
            await attempt
        return time.monotonic() - started

    async def scenario() -> list[float]:
        return await asyncio.gather(
            *(
                one(attempt)
                for attempt in (
                    files.keep("a", "track1.mp3"),
                    files.keep("a", "track2.mp3"),
                    files.fetch("a", GENERATED),
                    files.read("a", GENERATED),
                    files.names("a"),
                    files.rename("a", "track1.mp3", GENERATED),
                    files.copy("a", "track1.mp3", "b"),
                    files.delete("a", GENERATED),
                    files.remove("b"),
                    files.job_ids(),
                )
            )
        )

    return asyncio.run(scenario())


def test_a_bucket_away_is_told_of_in_time_and_may_be_back(
    bucket_host: OpenHost, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TIMES:
        monkeypatch.setattr(files_module, name, getattr(files_module, name) / HASTE)
    files = bucket_host("here")
    asyncio.run(kept(files, "a", track1_mp3=b"one", track2_mp3=bytes(20_000_000)))
    os.kill(s3.pid, signal.SIGSTOP)
    try:
        silent = away_after(files)
    finally:
        os.kill(s3.pid, signal.SIGCONT)
    assert max(silent) < AWAY_WITHIN_S / HASTE
    s3.stop()
    try:
        refusing = away_after(files)
    finally:
        s3.start()
    assert max(refusing) < AWAY_WITHIN_S / HASTE
    assert asyncio.run(bucket_host("there").read("a", "track1.mp3")) == b"one"


def test_a_missing_bucket_is_not_taken_for_missing_files(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    files = open_storage("s3://nobody-made-this", tmp_path, tmp_path)
    with pytest.raises(StorageUnavailableError, match=r"x\.wav of job a failed: .* no such bucket"):
        asyncio.run(files.read("a", "x.wav"))
    with pytest.raises(StorageUnavailableError, match="The specified bucket does not exist"):
        asyncio.run(files.names("a"))


def test_a_wrong_key_is_told_of(bucket_host: OpenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StorageUnavailableError, match=r"of job a failed: .*signature"):
        asyncio.run(bucket_host("here").read("a", GENERATED))


def test_without_a_url_the_files_are_in_the_cache(tmp_path: Path) -> None:
    for url in (None, ""):
        files = open_storage(url, tmp_path / "cache", tmp_path / "scratch")
        assert isinstance(files, LocalStorage)
        assert files.workspace("a") == tmp_path / "cache" / "music_a"


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket/a/prefix/"])
def test_a_bucket_is_named_by_a_url(tmp_path: Path, url: str) -> None:
    files = open_storage(url, tmp_path / "cache", tmp_path / "scratch")
    assert isinstance(files, S3Storage)
    assert files.workspace("a") == tmp_path / "scratch" / "music_a"


@pytest.mark.parametrize(
    "url", ["bucket", "s3://", "s3:///prefix", "gs://bucket", "/srv/files", "s3://b/p?x=1"]
)
def test_a_url_that_names_no_bucket_is_told_of(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"MUSICLAB_FILES_URL .* s3://bucket/prefix"):
        open_storage(url, tmp_path, tmp_path)
