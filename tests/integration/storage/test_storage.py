"""The files of jobs, both in a directory and in a bucket of a real S3 server."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import StorageUnavailableError
from orchestrator.storage.base import GENERATED, part_name, upload_name, window_name
from orchestrator.storage.local import LocalStorage
from tests.support.storage import UPLOAD, OpenHost, assert_missing, persist_job


def test_names_of_uploads_windows_and_parts_differ() -> None:
    names = {upload_name(1, ".wav"), window_name(1), window_name(2), part_name(1), part_name(11)}
    assert len(names | {GENERATED}) == 6


async def test_files_are_visible_to_every_host(open_host: OpenHost) -> None:
    here, there = open_host("here"), open_host("there")
    big = os.urandom(12_000_000)  # uploaded in parts, the last one smaller
    await persist_job(here, "a", track1_mp3=big, track2_mp3=b"two")
    await persist_job(here, "ab", track1_mp3=b"of another job")
    assert await there.list_names("a") == {"track1.mp3", "track2.mp3"}
    assert await there.job_ids() == {"a", "ab"}
    path = await there.fetch("a", "track1.mp3")
    assert path == there.workspace("a") / "track1.mp3"
    assert path.read_bytes() == big
    assert await there.read("a", "track2.mp3") == b"two"
    assert (await here.fetch("a", "track2.mp3")).read_bytes() == b"two"


async def test_missing_files_are_reported(open_host: OpenHost) -> None:
    files = open_host("here")
    assert await files.list_names("a") == set()
    assert await files.job_ids() == set()
    await assert_missing(files.fetch("a", UPLOAD))
    await files.create("a")
    assert await files.list_names("a") == set()
    await assert_missing(files.persist("a", UPLOAD))
    await assert_missing(files.fetch("a", UPLOAD))
    await assert_missing(files.read("a", UPLOAD))
    await assert_missing(files.rename("a", UPLOAD, GENERATED))
    await assert_missing(files.copy("a", UPLOAD, "b"))
    await files.delete("a", UPLOAD, GENERATED)
    await files.remove("b")
    assert await files.job_ids() == {"a"}


async def test_a_rename_replaces_an_existing_file(open_host: OpenHost) -> None:
    here, there = open_host("here"), open_host("there")
    await persist_job(here, "a", generated_wav=b"old", generated_7_part=b"new")
    assert (await there.fetch("a", GENERATED)).read_bytes() == b"old"
    await there.rename("a", part_name(7), GENERATED)
    assert await here.list_names("a") == {GENERATED}
    assert await here.read("a", GENERATED) == b"new"
    assert (await there.fetch("a", GENERATED)).read_bytes() == b"new"
    await assert_missing(there.fetch("a", part_name(7)))


async def test_a_copy_survives_the_original_job(open_host: OpenHost) -> None:
    here, there = open_host("here"), open_host("there")
    await persist_job(here, "a", track1_mp3=b"one")
    for _ in range(2):  # copying again is not an error
        await there.copy("a", UPLOAD, "b")
    assert there.workspace("b").is_dir()
    await here.remove("a")
    assert await here.job_ids() >= {"b"}
    assert await here.list_names("b") == {UPLOAD}
    assert (await here.fetch("b", UPLOAD)).read_bytes() == b"one"


async def test_files_are_copied_if_hard_links_are_not_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    files = LocalStorage(tmp_path)
    await persist_job(files, "a", track1_mp3=b"one")
    monkeypatch.setattr(os, "link", no_links)
    await files.copy("a", UPLOAD, "b")
    assert await files.read("b", UPLOAD) == b"one"
    assert [path.name for path in files.workspace("b").iterdir()] == [UPLOAD]


async def test_deleted_files_are_gone_on_every_host_and_others_remain(open_host: OpenHost) -> None:
    here, there = open_host("here"), open_host("there")
    await persist_job(here, "a", track1_mp3=b"one", track2_mp3=b"two", generated_wav=b"music")
    await here.delete("a", "track1.mp3", "track2.mp3", "window1.wav")
    assert await there.list_names("a") == {GENERATED}
    await assert_missing(here.fetch("a", "track1.mp3"))
    await assert_missing(there.fetch("a", "track1.mp3"))
    await here.delete("a")
    assert await there.read("a", GENERATED) == b"music"


async def test_a_removed_job_leaves_no_files(open_host: OpenHost) -> None:
    here, there = open_host("here"), open_host("there")
    await persist_job(here, "a", track1_mp3=b"one", track2_mp3=b"two")
    await persist_job(here, "b", track1_mp3=b"one")
    await there.fetch("a", UPLOAD)
    await there.remove("a")
    assert not there.workspace("a").exists()
    assert await there.job_ids() == {"b"}
    assert await here.list_names("a") == set()
    await here.remove("a")
    assert await here.job_ids() == {"b"}


async def test_removing_a_job_includes_files_written_meanwhile(tmp_path: Path) -> None:
    async def write(directory: Path) -> None:
        with pytest.raises(FileNotFoundError):
            for count in range(10_000):
                await asyncio.to_thread((directory / f"track{count}.mp3").write_bytes, b"late")

    files = LocalStorage(tmp_path)
    await files.create("a")
    for count in range(2000):
        (files.workspace("a") / f"old{count}").touch()
    await asyncio.gather(write(files.workspace("a")), files.remove("a"))
    assert not files.workspace("a").exists()


async def test_releasing_a_workspace_keeps_the_files_in_the_bucket(
    open_bucket_host: OpenHost,
) -> None:
    here, there = open_bucket_host("here"), open_bucket_host("there")
    await persist_job(here, "a", track1_mp3=b"one")
    await here.create("only here")
    assert await here.job_ids() == {"a", "only here"}
    assert await there.job_ids() == {"a"}
    await here.release_workspace("a")
    await here.release_workspace("only here")
    assert not here.workspace("a").exists()
    assert await here.job_ids() == {"a"}
    assert (await here.fetch("a", UPLOAD)).read_bytes() == b"one"


async def test_releasing_a_local_workspace_keeps_its_files(tmp_path: Path) -> None:
    files = LocalStorage(tmp_path)
    await persist_job(files, "a", track1_mp3=b"one")
    await files.release_workspace("a")
    assert await files.read("a", UPLOAD) == b"one"


async def test_a_cancelled_download_leaves_no_partial_file(open_bucket_host: OpenHost) -> None:
    here, there = open_bucket_host("here"), open_bucket_host("there")
    await persist_job(here, "a", track1_mp3=os.urandom(20_000_000))
    fetching = asyncio.create_task(there.fetch("a", UPLOAD))
    directory = there.workspace("a")
    while not directory.exists() or not list(directory.iterdir()):
        assert not fetching.done(), "the download was over before it could be cancelled"
        await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert list(directory.iterdir()) == []
    assert (await there.fetch("a", UPLOAD)).stat().st_size == 20_000_000


@pytest.mark.parametrize("name", ["", ".", "..", "../b", "a/b", ".hidden", "/etc/passwd"])
async def test_only_plain_file_names_are_accepted(open_host: OpenHost, name: str) -> None:
    files = open_host("here")
    for attempt in (
        files.persist("a", name),
        files.fetch("a", name),
        files.read("a", name),
        files.rename("a", GENERATED, name),
        files.copy("a", name, "b"),
        files.delete("a", name),
    ):
        with pytest.raises(ValueError, match="not a plain file name"):
            await attempt
    with pytest.raises(ValueError, match="not a plain file name"):
        files.workspace("../../a")


async def test_disk_usage_describes_the_disk_of_the_workspaces(open_host: OpenHost) -> None:
    files = open_host("here")
    disk = await files.disk_usage()
    usage = psutil.disk_usage(str(files.workspace("a").parent))
    assert disk.size == usage.total
    assert disk.free == pytest.approx(usage.free, abs=0.05 * usage.total)


async def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    files = LocalStorage(tmp_path / "cache")
    rejected = r"a directory for job a failed: .*[Dd]irectory"
    with pytest.raises(StorageUnavailableError, match=rejected):
        await files.create("a")
