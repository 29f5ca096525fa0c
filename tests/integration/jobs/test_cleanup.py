"""The cleanup: which jobs and files it removes, and which it must keep."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.database.schema import NOW, jobs, submissions
from orchestrator.errors import RateLimitError, SettingsError
from orchestrator.jobs import admission as admission_module
from orchestrator.jobs import cleanup as cleanup_module
from orchestrator.jobs.admission import Limits
from orchestrator.jobs.cleanup import Cleanup
from orchestrator.jobs.results import finalize_result
from orchestrator.storage.base import GENERATED, part_name, upload_name, window_name
from orchestrator.storage.local import LocalStorage
from tests.support.tables import Tables

DAY_S = 24 * 3600.0


@pytest.fixture
def files(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "cache")


async def put(files: LocalStorage, job_id: str, *names: str) -> None:
    await files.create(job_id)
    for name in names:
        (files.workspace(job_id) / name).write_text(name)


async def backdate(tables: Tables, job_id: str, seconds: float) -> None:
    """Moves the end of a job, or the last progress of its upload, `seconds` into the past."""

    def work(connection: sa.Connection) -> None:
        then = NOW - seconds
        job = jobs.update().where(jobs.c.id == job_id)
        connection.execute(job.values(finished_at=then, lease_until=then))
        submission = submissions.update().where(submissions.c.job_id == job_id)
        connection.execute(submission.values(at=then, forget_at=then))

    await tables.database.write(work)


async def run_cleanup(tables: Tables, files: LocalStorage) -> None:
    cleanup = Cleanup(tables.database, files, retention_s=DAY_S)
    await cleanup.remove_abandoned_uploads()
    for _ in range(2):
        await cleanup.run_once()


async def test_files_of_unknown_jobs_are_quarantined_for_a_day(
    tables: Tables, files: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.submit("queued")
    await tables.submissions().admit("receiving", "192.0.2.1", 1, repeated=False)
    for job_id in ("queued", "receiving", "unknown"):
        await put(files, job_id, upload_name(1, ".mp3"))
    for _ in range(2):
        await run_cleanup(tables, files)
        assert await files.job_ids() == {"queued", "receiving"}
        assert (await files.quarantined()).keys() == {"unknown"}
    assert await files.list_names("queued") == {upload_name(1, ".mp3")}
    monkeypatch.setattr(cleanup_module, "QUARANTINE_S", 0)
    await run_cleanup(tables, files)
    assert await files.quarantined() == {}
    assert await files.job_ids() == {"queued", "receiving"}


async def test_files_that_are_being_deleted_are_not_quarantined(
    tables: Tables, files: LocalStorage
) -> None:
    cleanup = Cleanup(tables.database, files, retention_s=DAY_S)
    for number in range(3):
        job_id = f"rejected{number}"
        await tables.submissions().admit(job_id, "192.0.2.1", 1, repeated=False)
        await put(files, job_id, upload_name(1, ".mp3"))
        assert await tables.submissions().withdraw(job_id)
        await cleanup.run_once()
        assert await files.job_ids() == {job_id}
        await files.remove(job_id)
    await cleanup.run_once()
    assert await files.quarantined() == {}


async def test_files_are_restored_from_quarantine_when_their_job_exists_again(
    tables: Tables, files: LocalStorage
) -> None:
    await put(files, "a", upload_name(1, ".mp3"))
    await run_cleanup(tables, files)
    assert await files.job_ids() == set()
    await tables.submit("a")  # as when a newer backup of the database is restored
    await run_cleanup(tables, files)
    assert await files.quarantined() == {}
    assert await files.list_names("a") == {upload_name(1, ".mp3")}


async def test_files_of_another_database_are_not_touched(
    tables: Tables, files: LocalStorage
) -> None:
    await put(files, "a", GENERATED)
    await files.claim("f" * 32)
    with pytest.raises(SettingsError, match="another database"):
        await run_cleanup(tables, files)
    assert await files.job_ids() == {"a"}
    assert await files.quarantined() == {}


async def test_a_finished_job_is_kept_for_a_day(tables: Tables, files: LocalStorage) -> None:
    for job_id in ("old", "young"):
        await tables.submit(job_id)
        await tables.complete(await tables.claim())
        await put(files, job_id, GENERATED)
    await backdate(tables, "old", DAY_S + 60)
    await backdate(tables, "young", DAY_S - 60)
    await run_cleanup(tables, files)
    assert await files.job_ids() == {"young"}
    assert await tables.table.get("old") is None
    assert (await tables.get("young")).state == "completed"


async def test_a_completed_job_keeps_only_the_result_of_its_lease(
    tables: Tables, files: LocalStorage
) -> None:
    await tables.submit("a")
    job = await tables.claim()
    await tables.complete(job)
    stray = part_name(job.lease + 1)
    await put(files, "a", part_name(job.lease), stray, window_name(1), upload_name(1, ".wav"))
    for _ in range(2):
        await run_cleanup(tables, files)
        assert await files.list_names("a") == {GENERATED}
    assert await files.read("a", GENERATED) == part_name(job.lease).encode()
    await finalize_result(files, "a", job.lease)
    assert await files.list_names("a") == {GENERATED}


async def test_a_failed_job_keeps_no_files(tables: Tables, files: LocalStorage) -> None:
    await tables.submit("a")
    await tables.leases.fail(await tables.claim(), "not_audio", "sentence", 1)
    await put(files, "a", upload_name(1, ".mp3"))
    await run_cleanup(tables, files)
    assert await files.job_ids() == set()
    assert (await tables.get("a")).error_code == "not_audio"


async def test_an_upload_whose_process_died_is_removed(tables: Tables, files: LocalStorage) -> None:
    for job_id in ("dead", "alive"):
        await tables.submissions().admit(job_id, "192.0.2.1", 1, repeated=False)
        await put(files, job_id, upload_name(1, ".mp3"))
    await backdate(tables, "dead", 1)
    await run_cleanup(tables, files)
    assert await files.job_ids() == {"alive"}


async def test_a_submission_outlives_its_deleted_job_by_a_day(
    tables: Tables, files: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "RATE_WINDOW_S", 10 * DAY_S)
    once = Limits(per_minute=1, queued=0, stored_bytes=0)
    submissions = tables.submissions(once)
    await tables.submit("a")
    await tables.table.delete("a")
    await run_cleanup(tables, files)
    with pytest.raises(RateLimitError, match="limited to 1"):
        await submissions.admit("b", "192.0.2.1", 1, repeated=False)
    await backdate(tables, "a", 1)
    await run_cleanup(tables, files)
    await submissions.admit("b", "192.0.2.1", 1, repeated=False)
