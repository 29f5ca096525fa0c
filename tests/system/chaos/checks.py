"""What has to be true when all is over."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests
import soundfile
import sqlalchemy as sa

from orchestrator.database.schema import events, jobs
from orchestrator.jobs.table import LEASE_S
from orchestrator.settings import Settings
from orchestrator.storage.base import GENERATED, JOB_PREFIX
from tests.support.signals import RATE, SEGMENT
from tests.system.chaos.commands import wait_until
from tests.system.chaos.systems import System

SWEPT_WITHIN_S = 4 * LEASE_S
TIMEOUT_S = 30
SOUND = f"{RATE} Hz, 1 channel, {SEGMENT} frames of PCM_16, not silent"


@dataclass(frozen=True)
class Check:
    """How many were as they have to be, and which were not."""

    name: str
    right: int
    faults: list[str]


def check(system: System, accepted: list[str]) -> Iterator[Check]:
    """Look at everything, then delete the jobs and look at what is left.

    Args:
        system: nothing is at work any more.
        accepted: the job of every key that was answered.
    """
    url = f"http://127.0.0.1:{system.settings.api_port}"
    ours = set(accepted)
    twice = [job_id for job_id, keys in Counter(accepted).items() if keys > 1]
    yield Check("jobs, each of a key of its own", len(ours), twice)

    states = {row.id: row.state for row in rows(system, sa.select(jobs.c.id, jobs.c.state))}
    yield _judged("rows that say completed", ours, states.get, "completed")
    yield _settled("rows of other jobs", lambda: sorted(_job_ids(system) - ours), [])
    documents = rows(system, sa.select(events.c.job_id, events.c.document))
    ends = Counter(row.job_id for row in documents if row.document["status"] == "completed")
    yield _judged("events that say completed, one a job", ours, lambda each: ends[each], 1)

    yield _judged("downloads that are music", ours, lambda each: _download(url, each), SOUND)
    results = [f"{JOB_PREFIX}{each}/{GENERATED}" for each in ours]
    yield _settled("files, the music alone", system.files, results)
    yield _settled("files in scratch folders", lambda: _scratch(system.settings), [])

    yield _judged("jobs deleted", ours, lambda each: _delete(url, each), 200)
    left = [
        f"{table.name}: {row}" for table in (jobs, events) for row in rows(system, table.select())
    ]
    yield Check("rows left", 0, left)
    yield _settled("files left", system.files, [])
    yield _settled("scratch files left", lambda: _scratch(system.settings), [])


def rows(system: System, query: sa.Select[Any]) -> list[sa.Row[Any]]:
    with system.database.connect() as connection:
        return list(connection.execute(query))


def _job_ids(system: System) -> set[str]:
    """All, those included that a process was receiving when it was killed, until they are swept."""
    return {row.id for row in rows(system, sa.select(jobs.c.id))}


def _scratch(settings: Settings) -> list[str]:
    """What lies in the folders of the processes."""
    return sorted(str(path) for path in settings.scratch_dir.glob("*/*"))


def _judged(name: str, ours: set[str], look: Callable[[str], object], wanted: object) -> Check:
    """What is seen of each job is what is wanted."""
    seen = {job_id: look(job_id) for job_id in sorted(ours)}
    faults = [f"{job_id}: {found}" for job_id, found in seen.items() if found != wanted]
    return Check(name, len(ours) - len(faults), faults)


def _settled(name: str, look: Callable[[], list[str]], wanted: list[str]) -> Check:
    """What is there is what is wanted, once the sweep has come."""
    try:
        wait_until(lambda: look() == sorted(wanted), SWEPT_WITHIN_S, name)
    except AssertionError:
        found = look()
        extra = [f"{path} is there" for path in sorted(set(found) - set(wanted))]
        missing = [f"{path} is missing" for path in sorted(set(wanted) - set(found))]
        return Check(name, len(wanted) - len(missing), extra + missing)
    return Check(name, len(wanted), [])


def _download(url: str, job_id: str) -> str:
    answer = requests.get(f"{url}/api/download/{job_id}", timeout=TIMEOUT_S)
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text}"
    with soundfile.SoundFile(io.BytesIO(answer.content)) as file:
        loudest = abs(file.read(dtype="int16")).max()
        return (
            f"{file.samplerate} Hz, {file.channels} channel, {file.frames} frames of "
            f"{file.subtype}, {'not silent' if loudest > 100 else 'silent'}"
        )


def _delete(url: str, job_id: str) -> int:
    return requests.delete(f"{url}/api/cleanup/{job_id}", timeout=TIMEOUT_S).status_code
