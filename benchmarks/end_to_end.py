"""What does the service add to its pipeline?

    python -m benchmarks.end_to_end

Starts `musiclab up` with the starter weights, packed before, and lets clients send two tracks of
four minutes, of which the windows at 60 and at 100 s are used: one client, then eight at once. The
times are the server's own, of the jobs' documents and of TorchServe's metrics. Prints how soon the
first job is done, where the time of a job goes, how many jobs a second eight clients get, and what
the processes take of the machine.
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
from benchmarks.machine import Elsewhere, peak_bytes
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
JOBS_OF_ONE = 12
TENTH = 9
CLIENTS = 8
JOBS_OF_EIGHT = 200
SETTLED_AFTER = 20
METRICS_WITHIN_S = 10

STAGES = ("encode", "cascade", "decode")
OBSERVED = ("batch_size", *(f"{stage}_seconds" for stage in STAGES))
# A job's timings as people would call them.
STAGE_NAMES = {
    "queued": "waiting in the queue",
    "convert": "conversion",
    "wait": "waiting for the model",
    "generate": "generation, with the way to the model and back",
    "save": "saving",
}
CPU_USERS = ("orchestrator", "ffmpeg", "model worker", "TorchServe")


@dataclass(frozen=True)
class EndToEnd:
    """What was measured.

    Attributes:
        uploaded_bytes: both tracks of a job.
        ready: seconds from the start of the command until it says Ready.
        first_done: seconds from the start of the command until the first job was finished.
        one: the jobs of one client, each sent when the one before was finished, and looked at by
            itself.
        eight: the jobs of eight such clients.
        settled_bytes, last_bytes, peak_bytes: what the model worker has resident after some of the
            eight clients' jobs and after the last, and the most it ever had.
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
        """How many times as long as the tenth job the first one took."""
        return self.alone[0].seconds / self.alone[TENTH].seconds

    @property
    def alone(self) -> list[Job]:
        """The jobs of one client."""
        return [load.jobs[0] for load in self.one]

    @property
    def job(self) -> float:
        """Seconds of one client's job, the median."""
        return median(job.seconds for job in self.alone)

    @property
    def added(self) -> float:
        """Seconds of such a job beside its pipeline, the median."""
        return median(load.jobs[0].seconds - load.pipeline for load in self.one)


class Observer:
    """Puts load on a running service and sees what becomes of it."""

    def __init__(self, settings: Settings, orchestrator: int, tracks: tuple[Path, Path]) -> None:
        served = torchserve_processes(settings)
        (self.worker,) = (each for each in served if _is_worker(each))
        (self._server,) = (each for each in served if not _is_worker(each))
        self._orchestrator = psutil.Process(orchestrator)
        self._client = MusicLabClient(Service(settings).url)
        self._model = ModelClient(settings, settings.key_file)
        self._tracks = tracks
        self._requests = 0

    def load(
        self, clients: int, jobs: int, on_done: Callable[[int], None] = lambda _: None
    ) -> Load:
        """Let clients send jobs, each the next one when its last is finished.

        Args:
            clients: how many.
            jobs: of all of them.
            on_done: is told after each job how many are done.
        """
        others = Elsewhere([self._orchestrator.pid, self.worker.pid, self._server.pid])
        cpu, samples = self._cpu(), self._samples()
        done: list[Job] = []
        telling = threading.Lock()

        def one_job(_: int) -> None:
            job = self._job()
            with telling:
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
        """CPU-seconds of each process so far; ffmpeg's are of those that have ended."""
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
        """TorchServe's samples of our metrics, once they tell of every request that was answered.

        A worker's metrics come to it by another way than its answers, and a little later.
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
                f"TorchServe counts {counted:g} requests, not {self._requests}; look into its logs "
                "for a job that was tried again"
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
            one = [observer.load(clients=1, jobs=1) for _ in range(JOBS_OF_ONE)]
            settled: list[int] = []

            def look(done: int) -> None:
                if done == SETTLED_AFTER:
                    settled.append(observer.worker.memory_info().rss)

            eight = observer.load(CLIENTS, JOBS_OF_EIGHT, on_done=look)
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
    """The sounds of a pair, over and over for four minutes, as MP3 files."""
    paths = []
    for number, sound in enumerate(pair(next(iter(PAIRS))), start=1):
        own = folder / f"track{number}"
        own.mkdir()
        whole = np.tile(sound, TRACK_SECONDS * RATE // len(sound))
        paths.append(make_track(own, "cbr.mp3", whole))
    first, second = paths
    return first, second


def _is_worker(process: psutil.Process) -> bool:
    return any("model_service_worker" in part for part in process.cmdline())


def _finished(status: Status) -> Job:
    assert status.finished_at is not None
    assert status.attempts <= 1, f"{status} was tried again, which takes time"
    return Job(status.created_at.timestamp(), status.finished_at.timestamp(), status.timings)


def _by_size(samples: dict[str, float]) -> dict[str, int]:
    """Batches by the sizes that the histogram's buckets tell apart."""
    limits = {"1": "1.0", "2": "2.5", "3 to 5": "5.0", "6 and more": "+Inf"}
    upto = [samples[f"musiclab_batch_size_bucket{limit}"] for limit in limits.values()]
    counts = np.diff(upto, prepend=0)
    return {size: int(count) for size, count in zip(limits, counts, strict=True) if count}


def tables(figures: EndToEnd) -> str:
    """What was measured, for people."""
    alone, eight = figures.alone, figures.eight
    text = (
        "`musiclab up` with the starter weights, packed before; two MP3 files of four minutes "
        f"({figures.uploaded_bytes / 1e6:.1f} MB together) a job, of which the windows at "
        f"{WINDOWS_S[0]:g} and {WINDOWS_S[1]:g} s are used. By the server's clock.\n\n"
        f"The command says Ready after {figures.ready:.1f} s, and the first job is finished after "
        f"{figures.first_done:.1f} s. That job took {alone[0].seconds:.2f} s, the tenth "
        f"{alone[TENTH].seconds:.2f} s.\n\n"
        f"One client, {len(alone)} jobs one after the other; medians of what a job took:\n\n"
    )
    text += table(("", "seconds"), _of_one_client(figures))
    sizes = ", ".join(f"{count} of {size}" for size, count in eight.batches.items())
    usual = median(job.seconds for job in eight.jobs)
    text += (
        f"Eight clients, {len(eight.jobs)} jobs in all: {eight.seconds:.0f} s, "
        f"{eight.jobs_per_second:.3f} jobs a second; the median job took {usual:.2f} s. Batches: "
        f"{sizes}; a batch took {eight.pipeline:.3f} s in the pipeline.\n\n"
        "CPU-seconds a job:\n\n"
    )
    text += table(
        ("clients", *CPU_USERS),
        [
            ("1", *(f"{median(load.cpu[user] for load in figures.one):.3f}" for user in CPU_USERS)),
            ("8", *(f"{eight.cpu[user] / len(eight.jobs):.3f}" for user in CPU_USERS)),
        ],
    )
    return text + (
        f"The model worker has {figures.settled_bytes / 1e9:.2f} GB resident after "
        f"{SETTLED_AFTER} of the eight clients' jobs and {figures.last_bytes / 1e9:.2f} GB after "
        f"the last; never more than {figures.peak_bytes / 1e9:.2f} GB.\n\n"
    )


def _of_one_client(figures: EndToEnd) -> list[tuple[str, str]]:
    """Where the time of a job goes."""
    seconds = {"a job, from created to finished": figures.job}
    for stage, name in STAGE_NAMES.items():
        seconds[name] = median(job.stages[stage] for job in figures.alone)
    seconds["unexplained"] = median(job.unexplained for job in figures.alone)
    seconds["the pipeline inside the model worker"] = median(load.pipeline for load in figures.one)
    for stage in STAGES:
        seconds[f"of it, {stage}"] = median(load.stages[stage] for load in figures.one)
    seconds["the job beside that pipeline"] = figures.added
    return [(name, f"{each:.3f}") for name, each in seconds.items()]


def main() -> None:
    print(tables(measure()))


if __name__ == "__main__":
    main()
