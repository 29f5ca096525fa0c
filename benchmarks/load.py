"""Finished jobs, and what the service did meanwhile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A finished job, by the server's clock.

    Attributes:
        created, finished: seconds since 1970.
        stages: seconds that it waited, and of each stage.
    """

    created: float
    finished: float
    stages: dict[str, float]

    @property
    def seconds(self) -> float:
        return self.finished - self.created

    @property
    def unexplained(self) -> float:
        """Seconds that no stage accounts for."""
        return self.seconds - sum(self.stages.values())


@dataclass(frozen=True)
class Load:
    """Some jobs, and what the service did meanwhile.

    Attributes:
        jobs: in the order in which they were finished.
        batches: how many were of which size.
        stages: mean seconds of a batch in the model worker's pipeline, by stage.
        cpu: CPU-seconds by process.
        elsewhere: the share of the machine's CPU time that processes took which are none of ours.
    """

    jobs: list[Job]
    batches: dict[str, int]
    stages: dict[str, float]
    cpu: dict[str, float]
    elsewhere: float

    @property
    def seconds(self) -> float:
        """From the first one's creation to the last one's end."""
        return self.jobs[-1].finished - min(job.created for job in self.jobs)

    @property
    def jobs_per_second(self) -> float:
        return len(self.jobs) / self.seconds

    @property
    def pipeline(self) -> float:
        """Mean seconds of a batch in the model worker's pipeline."""
        return sum(self.stages.values())
