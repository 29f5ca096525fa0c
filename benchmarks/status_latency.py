"""Measures the latency of status requests on an idle and on a busy service.

    python -m benchmarks.status_latency [--rounds 3] [--seconds 20]

Starts `musiclab up`. 200 clients poll a status every two seconds, as the example in docs/api.md
does. Idle and busy phases alternate: in a busy phase, jobs run at full capacity and another 200
clients follow their event streams. Prints the 99th percentile of each phase, the medians and their
ratio, and the longest callbacks of the service's event loop.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.machine import PROJECT
from orchestrator.settings import Settings
from tests.support.service import environment
from tests.support.settings import settings_in
from tests.support.signals import RATE, encoded, noise

CLIENTS = 200
POLL_S = 2.0
UNFINISHED = 12  # more than run at once, so that some are queued
READY_WITHIN_S = 120


class Pollers:
    """200 clients that poll a job's status every two seconds, and their latencies.

    Attributes:
        jobs: ids of the jobs to poll.
    """

    def __init__(self, session: aiohttp.ClientSession, jobs: list[str]) -> None:
        self.jobs = jobs
        self._session = session
        self._seconds: list[float] = []

    async def percentile(self, seconds: float) -> float:
        """Poll for `seconds`; returns the 99th percentile of the latency in milliseconds."""
        async with clients(self._poll() for _ in range(CLIENTS)):
            await asyncio.sleep(POLL_S)  # until all clients have started
            self._seconds.clear()
            await asyncio.sleep(seconds)
            return 1000 * statistics.quantiles(self._seconds, n=100)[98]

    async def _poll(self) -> None:
        await asyncio.sleep(random.uniform(0, POLL_S))  # noqa: S311
        while True:
            began = time.perf_counter()
            await status(self._session, random.choice(self.jobs))  # noqa: S311
            took = time.perf_counter() - began
            self._seconds.append(took)
            await asyncio.sleep(max(0, POLL_S - took))


async def work_and_follow(url: str, shared: Path) -> None:
    """Keep UNFINISHED jobs queued or running and follow them with 200 clients, until cancelled.

    Runs in a separate process, so that a burst of events does not delay the measured clients.
    Writes the unfinished jobs and the number of completed jobs to the file `shared`.
    """
    jobs: list[str] = []
    completed = 0
    async with session_of(url) as session:
        jobs.append(await submit(session, 0))

        async def follow() -> None:
            while True:
                job_id = random.choice(jobs)  # noqa: S311
                async with session.get(f"/api/events/{job_id}") as response:
                    async for _ in response.content:
                        pass
                await asyncio.sleep(0.5)

        async with clients(follow() for _ in range(CLIENTS)):
            for number in itertools.count(1):
                for job_id in list(jobs):
                    if await status(session, job_id) == "completed" and len(jobs) > 1:
                        jobs.remove(job_id)
                        completed += 1
                if len(jobs) < UNFINISHED:
                    jobs.append(await submit(session, number))
                    continue
                part = shared.with_suffix(".part")
                part.write_text(json.dumps([jobs, completed]))
                part.replace(shared)
                await asyncio.sleep(0.5)


async def submit(session: aiohttp.ClientSession, seed: int) -> str:
    form = aiohttp.FormData()
    for track in (1, 2):
        sound = encoded(noise(2 * RATE, 2 * seed + track))
        form.add_field(f"track{track}", sound, filename=f"{track}.wav")
    async with session.post("/api/generate", data=form) as response:
        document = await response.json()
        assert response.status == 202, document
        return str(document["job_id"])


async def status(session: aiohttp.ClientSession, job_id: str) -> str:
    async with session.get(f"/api/status/{job_id}") as response:
        document = await response.json()
        assert document.get("status") != "failed", document
        return str(document.get("status"))


@asynccontextmanager
async def clients(coroutines: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run clients in the background within the context; raises if one of them failed."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if not isinstance(result, asyncio.CancelledError):
            raise RuntimeError("a client failed") from result


def session_of(url: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0))


async def busy_phase(pollers: Pollers, url: str, shared: Path, seconds: float) -> tuple[float, int]:
    """Return the percentile while jobs run, and the number of jobs completed meanwhile."""
    shared.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.status_latency", "--work", url, str(shared)]
    worker = subprocess.Popen(command, cwd=PROJECT)
    try:
        while not shared.exists():
            assert worker.poll() is None, "the process that submits jobs exited"
            await asyncio.sleep(0.2)
        pollers.jobs, _ = json.loads(shared.read_text())
        percentile = await pollers.percentile(seconds)
        return percentile, json.loads(shared.read_text())[1]
    finally:
        worker.terminate()
        worker.wait()


async def until_idle(session: aiohttp.ClientSession, jobs: list[str]) -> None:
    for job_id in jobs:
        while await status(session, job_id) != "completed":
            await asyncio.sleep(0.5)


@asynccontextmanager
async def service(settings: Settings, report: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Run `musiclab up` under benchmarks.watched_service, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.watched_service", str(report), "up"],
        cwd=PROJECT,
        env=environment(settings),
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{settings.api_port}"
    try:
        async with session_of(url) as session:
            async with asyncio.timeout(READY_WITHIN_S):
                while not await _is_ready(session):
                    await asyncio.sleep(0.5)
            yield session
    finally:
        process.terminate()
        process.wait()


async def _is_ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/ready") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def measure(rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        unlimited = {"rate_limit": 0, "max_queued": 0, "reuse_results": False}
        settings = settings_in(Path(folder)).model_copy(update=unlimited)
        idle, busy, completed = [], [], 0
        url = f"http://127.0.0.1:{settings.api_port}"
        async with service(settings, report) as session:
            pollers = Pollers(session, [await submit(session, 0)])
            began = time.time()  # callbacks during startup are excluded
            for _ in range(rounds):
                await until_idle(session, pollers.jobs)
                idle.append(await pollers.percentile(seconds))
                shared = Path(folder) / "jobs.json"
                percentile, done = await busy_phase(pollers, url, shared, seconds)
                busy.append(percentile)
                completed += done
                print(f"p99 of status: idle {idle[-1]:6.1f} ms, busy {busy[-1]:6.1f} ms")
            print(f"jobs completed in the busy phases: {completed}")
        idle_ms, busy_ms = statistics.median(idle), statistics.median(busy)
        print(
            f"medians: idle {idle_ms:.1f} ms, busy {busy_ms:.1f} ms, ratio {busy_ms / idle_ms:.2f}"
        )
        print("longest callbacks of the service's event loop, by CPU time:")
        callbacks = [each for each in json.loads(report.read_text()) if each[1] > began]
        for took, _, callback in callbacks[:5]:
            print(f"{1000 * took:6.1f} ms  {callback[:150]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--work", nargs=2, metavar=("URL", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        asyncio.run(work_and_follow(arguments.work[0], Path(arguments.work[1])))
        return
    asyncio.run(measure(arguments.rounds, arguments.seconds))


if __name__ == "__main__":
    main()
