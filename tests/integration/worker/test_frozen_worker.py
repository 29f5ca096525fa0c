"""A worker that is frozen past its lease and resumes after another has finished its job."""

from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from orchestrator.database.schema import events, jobs
from orchestrator.settings import Settings
from orchestrator.storage.base import GENERATED, JOB_PREFIX
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server
from tests.support.service import DONE_WITHIN_S, Service
from tests.support.signals import RATE, encoded, noise
from tests.support.tables import Backend
from tests.system.chaos.checks import CLEANED_UP_WITHIN_S, rows
from tests.system.chaos.commands import Command, wait_until
from tests.system.chaos.systems import ManyProcesses, started


def test_a_resumed_worker_does_not_touch_the_newer_result(
    packed: Settings, tmp_path: Path, postgres: PostgresServer, s3: S3Server
) -> None:
    with started(ManyProcesses(packed, tmp_path, postgres, s3)) as system:
        *_, first, second = system.commands
        second.freeze()  # so that the other worker claims the job
        files = {
            f"track{track}": ("noise.wav", encoded(noise(2 * RATE, track))) for track in (1, 2)
        }
        job_id = Service(system.settings).generate(files).json()["job_id"]
        query = sa.select(jobs).where(jobs.c.id == job_id)
        wait_until(
            lambda: rows(system, query)[0].progress == 50, DONE_WITHIN_S, "generation has started"
        )
        first.freeze()
        second.resume()
        wait_until(lambda: rows(system, query)[0].state == "completed", DONE_WITHIN_S, "done")
        music = [f"{JOB_PREFIX}{job_id}/{GENERATED}"]
        wait_until(lambda: system.files() == music, CLEANED_UP_WITHIN_S, "only the music is left")

        before = stored_state(system, job_id)
        assert [row.lease for row in before["row"]] == [2]
        first.resume()
        wait_until(
            lambda: not is_running_jobs(first), DONE_WITHIN_S, "the first worker abandons the job"
        )
        assert stored_state(system, job_id) == before


def stored_state(system: ManyProcesses, job_id: str) -> dict[str, Any]:
    """Everything stored for a job."""
    return {
        "row": rows(system, sa.select(jobs).where(jobs.c.id == job_id)),
        "events": rows(system, sa.select(events).where(events.c.job_id == job_id)),
        "files": [system.store.head(path) for path in system.files()],
        "music": Service(system.settings).call("GET", f"/api/download/{job_id}").content,
    }


def is_running_jobs(worker: Command) -> bool:
    metrics = requests.get(f"http://127.0.0.1:{worker.health}/metrics", timeout=30).text
    return "musiclab_jobs_at_work 0.0" not in metrics.splitlines()


async def test_a_resumed_process_does_not_claim_its_own_job_again(tmp_path: Path) -> None:
    async with Backend("", tmp_path / "jobs.sqlite").opened() as tables:
        await tables.submit("slept")
        job = await tables.claim()
        await tables.leases.expire_previous()  # its lease has expired
        assert await tables.leases.claim() is None
        tables.leases.release(job.id)
        again = await tables.claim()
        assert (again.id, again.lease) == (job.id, 2)
