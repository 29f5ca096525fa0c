"""Finished jobs and the activity of the service while they ran."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A finished job; times are measured by the server's clock.

    Attributes:
        created, finished: Unix time in seconds.
        stages: seconds in the queue and in each stage.
    """

    created: float
    finished: float
    stages: dict[str, float]

    @property
    def seconds(self) -> float:
        return self.finished - self.created

    @property
    def unaccounted(self) -> float:
        """Seconds that no stage accounts for."""
        return self.seconds - sum(self.stages.values())


@dataclass(frozen=True)
class Load:
    """A set of jobs and the activity of the service while they ran.

    Attributes:
        jobs: in order of completion.
        batches: number of batches by size.
        stages: mean seconds per batch in the TorchServe worker's pipeline, by stage.
        cpu: CPU-seconds by process.
        elsewhere: share of the machine's CPU time that unrelated processes used.
    """

    jobs: list[Job]
    batches: dict[str, int]
    stages: dict[str, float]
    cpu: dict[str, float]
    elsewhere: float

    @property
    def seconds(self) -> float:
        """Seconds from the creation of the first job to the end of the last."""
        return self.jobs[-1].finished - min(job.created for job in self.jobs)

    @property
    def jobs_per_second(self) -> float:
        return len(self.jobs) / self.seconds

    @property
    def pipeline(self) -> float:
        """Mean seconds per batch in the TorchServe worker's pipeline."""
        return sum(self.stages.values())
