"""Measures the overhead of the service over its pipeline.

    python -m benchmarks.end_to_end

Starts `musiclab up` with the starter weights, packed in advance. Clients submit two four-minute
tracks with windows at 60 and 100 s: first one client, then eight concurrently. Times are taken from
the jobs' status documents and TorchServe's metrics. Prints the time until the first job is
completed, the time of a job by stage, the throughput of eight clients, and the CPU time and memory
of the processes.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.load import Job, Load
from benchmarks.machine import OtherCpuUsage, peak_bytes
from benchmarks.markdown import table
from benchmarks.sounds import PAIRS, pair
from orchestrator.archives.packing import pack
from orchestrator.archives.packing_inputs import choose_inputs
from orchestrator.client import MusicLabClient, Status
from orchestrator.settings import Settings
from tests.support.model_client import ModelClient
from tests.support.service import Service, running, torchserve_processes
from tests.support.settings import settings_in
from tests.support.signals import RATE
from tests.support.tracks import make_track

TRACK_SECONDS = 240
WINDOWS_S = (60.0, 100.0)
ONE_CLIENT_JOBS = 12
TENTH_JOB = 9
CLIENTS = 8
EIGHT_CLIENTS_JOBS = 200
SETTLED_AFTER = 20
METRICS_WITHIN_S = 10

STAGES = ("encode", "cascade", "decode")
OBSERVED = ("batch_size", *(f"{stage}_seconds" for stage in STAGES))
# Labels of a job's timings.
STAGE_NAMES = {
    "queued": "waiting in the queue",
    "convert": "conversion",
    "wait": "waiting for the model",
    "generate": "generation, including the request to TorchServe",
    "save": "saving",
}
# Keys of Load.cpu and their labels.
CPU_USERS = {
    "orchestrator": "orchestrator",
    "ffmpeg": "ffmpeg",
    "model worker": "TorchServe worker",
    "TorchServe": "TorchServe frontend",
}


@dataclass(frozen=True)
class EndToEnd:
    """The measurements.

    Attributes:
        uploaded_bytes: total size of both tracks of a job.
        ready: seconds from the start of the command until it prints Ready.
        first_done: seconds from the start of the command until the first job finished.
        one: the jobs of one client, sent one after the other; one Load per job.
        eight: the jobs of eight concurrent clients.
        settled_bytes, last_bytes, peak_bytes: resident memory of the TorchServe worker after
            SETTLED_AFTER of the eight clients' jobs and after the last one, and its peak.
    """

    uploaded_bytes: int
    ready: float
    first_done: float
    one: list[Load]
    eight: Load
    settled_bytes: int
    last_bytes: int
    peak_bytes: int

    @property
    def first_to_tenth(self) -> float:
        """Duration of the first job relative to the tenth."""
        return self.one_client_jobs[0].seconds / self.one_client_jobs[TENTH_JOB].seconds

    @property
    def one_client_jobs(self) -> list[Job]:
        """The jobs of one client."""
        return [load.jobs[0] for load in self.one]

    @property
    def job(self) -> float:
        """Median seconds of one client's jobs."""
        return median(job.seconds for job in self.one_client_jobs)

    @property
    def overhead(self) -> float:
        """Median seconds that one client's jobs spend outside the pipeline."""
        return median(load.jobs[0].seconds - load.pipeline for load in self.one)


class Observer:
    """Puts load on a running service and measures it."""

    def __init__(self, settings: Settings, orchestrator: int, tracks: tuple[Path, Path]) -> None:
        processes = torchserve_processes(settings)
        (self.worker,) = (each for each in processes if _is_worker(each))
        (self._server,) = (each for each in processes if not _is_worker(each))
        self._orchestrator = psutil.Process(orchestrator)
        self._client = MusicLabClient(Service(settings).url)
        self._model = ModelClient(settings, settings.key_file)
        self._tracks = tracks
        self._requests = 0

    def load(
        self, clients: int, jobs: int, on_done: Callable[[int], None] = lambda _: None
    ) -> Load:
        """Run jobs from concurrent clients; each client has one job at a time.

        Args:
            clients: number of clients.
            jobs: total number of jobs.
            on_done: called after each job with the number of finished jobs.
        """
        others = OtherCpuUsage([self._orchestrator.pid, self.worker.pid, self._server.pid])
        cpu, samples = self._cpu(), self._samples()
        done: list[Job] = []
        lock = threading.Lock()

        def one_job(_: int) -> None:
            job = self._job()
            with lock:
                done.append(job)
                on_done(len(done))

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(one_job, range(jobs)))
        self._requests += jobs
        spent = {name: seconds - cpu[name] for name, seconds in self._cpu().items()}
        grown = {name: value - samples.get(name, 0) for name, value in self._samples().items()}
        batches = grown["musiclab_batch_size_count"]
        return Load(
            jobs=sorted(done, key=lambda job: job.finished),
            batches=_by_size(grown),
            stages={stage: grown[f"musiclab_{stage}_seconds_sum"] / batches for stage in STAGES},
            cpu=spent,
            elsewhere=others.share(),
        )

    def _job(self) -> Job:
        first, second = WINDOWS_S
        job_id = self._client.submit(*self._tracks, start1=first, start2=second)
        return _finished(self._client.wait(job_id))

    def _cpu(self) -> dict[str, float]:
        """Return the CPU-seconds of each process so far; for ffmpeg, of exited processes only."""
        own = self._orchestrator.cpu_times()
        worker, server = self.worker.cpu_times(), self._server.cpu_times()
        seconds = (
            own.user + own.system,
            own.children_user + own.children_system,
            worker.user + worker.system,
            server.user + server.system,
        )
        return dict(zip(CPU_USERS, seconds, strict=True))

    def _samples(self) -> dict[str, float]:
        """Return TorchServe's samples of MusicLab's metrics once they include all requests.

        TorchServe receives a worker's metrics separately from its responses, and slightly later.
        """
        deadline = time.monotonic() + METRICS_WITHIN_S
        while True:
            samples = {
                name + labels.get("le", ""): value
                for name, labels, value in self._model.samples()
                if name.startswith("musiclab_")
            }
            counted = samples.get("musiclab_batch_size_sum", 0)
            batches = {samples.get(f"musiclab_{each}_count") for each in OBSERVED}
            if counted == self._requests and len(batches) == 1:
                return samples
            assert time.monotonic() < deadline, (
                f"TorchServe counts {counted:g} requests instead of {self._requests}; check its "
                "logs for a retried job"
            )
            time.sleep(0.1)


def measure() -> EndToEnd:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = {"rate_limit": 0, "reuse_results": False}
        settings = settings_in(folder).model_copy(update=chosen)
        pack(settings, choose_inputs(settings))
        tracks = make_tracks(folder)
        began = time.time()
        with running(settings, "up") as process:
            ready = time.time() - began
            observer = Observer(settings, process.pid, tracks)
            one = [observer.load(clients=1, jobs=1) for _ in range(ONE_CLIENT_JOBS)]
            settled: list[int] = []

            def record_memory(done: int) -> None:
                if done == SETTLED_AFTER:
                    settled.append(observer.worker.memory_info().rss)

            eight = observer.load(CLIENTS, EIGHT_CLIENTS_JOBS, on_done=record_memory)
            return EndToEnd(
                uploaded_bytes=sum(track.stat().st_size for track in tracks),
                ready=ready,
                first_done=one[0].jobs[0].finished - began,
                one=one,
                eight=eight,
                settled_bytes=settled[0],
                last_bytes=observer.worker.memory_info().rss,
                peak_bytes=peak_bytes(observer.worker.pid),
            )


def make_tracks(folder: Path) -> tuple[Path, Path]:
    """Write the sounds of a pair, repeated for four minutes, as MP3 files."""
    paths = []
    for number, sound in enumerate(pair(next(iter(PAIRS))), start=1):
        directory = folder / f"track{number}"
        directory.mkdir()
        whole = np.tile(sound, TRACK_SECONDS * RATE // len(sound))
        paths.append(make_track(directory, "cbr.mp3", whole))
    first, second = paths
    return first, second


def _is_worker(process: psutil.Process) -> bool:
    return any("model_service_worker" in part for part in process.cmdline())


def _finished(status: Status) -> Job:
    assert status.finished_at is not None
    assert status.attempts <= 1, f"{status} was retried, which distorts the timing"
    return Job(status.created_at.timestamp(), status.finished_at.timestamp(), status.timings)


def _by_size(samples: dict[str, float]) -> dict[str, int]:
    """Count batches by size, as far as the histogram's buckets distinguish sizes."""
    limits = {"1": "1.0", "2": "2.5", "3 to 5": "5.0", "6 and more": "+Inf"}
    cumulative = [samples[f"musiclab_batch_size_bucket{limit}"] for limit in limits.values()]
    counts = np.diff(cumulative, prepend=0)
    return {size: int(count) for size, count in zip(limits, counts, strict=True) if count}


def tables(figures: EndToEnd) -> str:
    """Format the measurements as Markdown."""
    one_client, eight = figures.one_client_jobs, figures.eight
    text = (
        "`musiclab up` with the starter weights, packed in advance. Each job has two four-minute "
        f"MP3 files ({figures.uploaded_bytes / 1e6:.1f} MB in total) with windows at "
        f"{WINDOWS_S[0]:g} and {WINDOWS_S[1]:g} s. Times are measured by the server's clock.\n\n"
        f"The command prints Ready after {figures.ready:.1f} s, and the first job is completed "
        f"after {figures.first_done:.1f} s. The first job took {one_client[0].seconds:.2f} s, the "
        f"tenth {one_client[TENTH_JOB].seconds:.2f} s.\n\n"
        f"One client, {len(one_client)} consecutive jobs; medians per job:\n\n"
    )
    text += table(("", "seconds"), _one_client_rows(figures))
    sizes = ", ".join(f"{count} of {size}" for size, count in eight.batches.items())
    median_seconds = median(job.seconds for job in eight.jobs)
    text += (
        f"Eight clients, {len(eight.jobs)} jobs in total: {eight.seconds:.0f} s, "
        f"{eight.jobs_per_second:.3f} jobs per second. The median job took {median_seconds:.2f} s. "
        f"Batches by number of jobs: {sizes}. The mean pipeline time of a batch was "
        f"{eight.pipeline:.3f} s.\n\n"
        "CPU-seconds per job:\n\n"
    )
    text += table(
        ("clients", *CPU_USERS.values()),
        [
            ("1", *(f"{median(load.cpu[user] for load in figures.one):.3f}" for user in CPU_USERS)),
            ("8", *(f"{eight.cpu[user] / len(eight.jobs):.3f}" for user in CPU_USERS)),
        ],
    )
    return text + (
        f"The resident memory of the TorchServe worker was {figures.settled_bytes / 1e9:.2f} GB "
        f"after {SETTLED_AFTER} of the eight clients' jobs and {figures.last_bytes / 1e9:.2f} GB "
        f"after the last one; its peak was {figures.peak_bytes / 1e9:.2f} GB.\n\n"
    )


def _one_client_rows(figures: EndToEnd) -> list[tuple[str, str]]:
    """Break down the time of one client's jobs: label and seconds."""
    seconds = {"job, from creation to completion": figures.job}
    for stage, name in STAGE_NAMES.items():
        seconds[name] = median(job.stages[stage] for job in figures.one_client_jobs)
    seconds["unaccounted for"] = median(job.unaccounted for job in figures.one_client_jobs)
    seconds["pipeline in the TorchServe worker"] = median(load.pipeline for load in figures.one)
    for stage in STAGES:
        seconds[f"pipeline: {stage}"] = median(load.stages[stage] for load in figures.one)
    seconds["job without the pipeline"] = figures.overhead
    return [(name, f"{each:.3f}") for name, each in seconds.items()]


def main() -> None:
    print(tables(measure()))


if __name__ == "__main__":
    main()
