"""Invariants that are checked after all faults are injected and all jobs are finished."""

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

CLEANED_UP_WITHIN_S = 4 * LEASE_S
TIMEOUT_S = 30
SOUND = f"{RATE} Hz, 1 channel, {SEGMENT} frames of PCM_16, not silent"


@dataclass(frozen=True)
class Check:
    """The number of items that passed a check, and a description of each that failed."""

    name: str
    passed: int
    violations: list[str]


def check(system: System, accepted: list[str]) -> Iterator[Check]:
    """Check all jobs, then delete them and check that nothing is left.

    Args:
        system: a system with no running jobs.
        accepted: the job of each idempotency key that received a response.
    """
    url = f"http://127.0.0.1:{system.settings.api_port}"
    ours = set(accepted)
    twice = [job_id for job_id, keys in Counter(accepted).items() if keys > 1]
    yield Check("jobs, each with a distinct key", len(ours), twice)

    states = {row.id: row.state for row in rows(system, sa.select(jobs.c.id, jobs.c.state))}
    yield _check_each("rows with state completed", ours, states.get, "completed")
    yield _check_eventually("rows of other jobs", lambda: sorted(_job_ids(system) - ours), [])
    documents = rows(system, sa.select(events.c.job_id, events.c.document))
    ends = Counter(row.job_id for row in documents if row.document["status"] == "completed")
    yield _check_each("completed events, one per job", ours, lambda each: ends[each], 1)

    yield _check_each("downloads with valid music", ours, lambda each: _download(url, each), SOUND)
    results = [f"{JOB_PREFIX}{each}/{GENERATED}" for each in ours]
    yield _check_eventually("files, only the music", system.files, results)
    yield _check_eventually("files in scratch directories", lambda: _scratch(system.settings), [])

    yield _check_each("jobs deleted", ours, lambda each: _delete(url, each), 200)
    left = [
        f"{table.name}: {row}" for table in (jobs, events) for row in rows(system, table.select())
    ]
    yield Check("rows left", 0, left)
    yield _check_eventually("files left", system.files, [])
    yield _check_eventually("scratch files left", lambda: _scratch(system.settings), [])


def rows(system: System, query: sa.Select[Any]) -> list[sa.Row[Any]]:
    with system.database.connect() as connection:
        return list(connection.execute(query))


def _job_ids(system: System) -> set[str]:
    """All jobs, including uploads interrupted by a kill, until the cleanup deletes them."""
    return {row.id for row in rows(system, sa.select(jobs.c.id))}


def _scratch(settings: Settings) -> list[str]:
    """Files in the scratch directories of the processes."""
    return sorted(str(path) for path in settings.scratch_dir.glob("*/*"))


def _check_each(
    name: str, ours: set[str], observe: Callable[[str], object], expected: object
) -> Check:
    """Check that `observe` returns the expected value for each job."""
    seen = {job_id: observe(job_id) for job_id in sorted(ours)}
    violations = [f"{job_id}: {found}" for job_id, found in seen.items() if found != expected]
    return Check(name, len(ours) - len(violations), violations)


def _check_eventually(name: str, observe: Callable[[], list[str]], expected: list[str]) -> Check:
    """Check that `observe` returns the expected items by the time the cleanup has run."""
    try:
        wait_until(lambda: observe() == sorted(expected), CLEANED_UP_WITHIN_S, name)
    except AssertionError:
        found = observe()
        extra = [f"{path} is left over" for path in sorted(set(found) - set(expected))]
        missing = [f"{path} is missing" for path in sorted(set(expected) - set(found))]
        return Check(name, len(expected) - len(missing), extra + missing)
    return Check(name, len(expected), [])


def _download(url: str, job_id: str) -> str:
    response = requests.get(f"{url}/api/download/{job_id}", timeout=TIMEOUT_S)
    if response.status_code != 200:
        return f"{response.status_code} {response.text}"
    with soundfile.SoundFile(io.BytesIO(response.content)) as file:
        loudest = abs(file.read(dtype="int16")).max()
        return (
            f"{file.samplerate} Hz, {file.channels} channel, {file.frames} frames of "
            f"{file.subtype}, {'not silent' if loudest > 100 else 'silent'}"
        )


def _delete(url: str, job_id: str) -> int:
    return requests.delete(f"{url}/api/cleanup/{job_id}", timeout=TIMEOUT_S).status_code
