"""The two ways in which MusicLab runs, and the blows that each has to stand."""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import sqlalchemy as sa
from obstore.store import S3Store

from orchestrator.jobs.table import LEASE_S
from orchestrator.serving.watcher import WATCH_INTERVAL_S
from orchestrator.settings import Settings
from orchestrator.storage.base import MARKER
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.s3 import S3Server, s3_server
from tests.support.service import torchserve_processes
from tests.system.chaos.commands import Command, wait_ready

TORCHSERVE = {"TorchServe": "org.pytorch.serve.ModelServer", "its worker": "model_service_worker"}

AnySystem = TypeVar("AnySystem", bound="System")

# What a blow is called, and how it is dealt.
Blow = tuple[str, Callable[[], None]]


class System(Protocol):
    """MusicLab with all its processes.

    Attributes:
        settings: of the API.
        commands: its processes, all of them, in the order in which they start.
        database: where its tables are.
    """

    settings: Settings
    commands: list[Command]
    database: sa.Engine

    def blows(self, kills: int, chance: random.Random) -> Iterator[Blow]:
        """So many kills of MusicLab's own processes, and what happens to others meanwhile."""

    def files(self) -> list[str]:
        """All that is kept of jobs: `music_<job>/<name>`, and folders that are empty.

        What is in quarantine, too, but not the marker.
        """


class OneProcess:
    """`musiclab up`: a database in a file, and a folder of files."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.commands = [Command(("up",), settings, settings.api_port, folder / "up.log")]
        self.database = sa.create_engine(f"sqlite:///{settings.database_file}")

    def blows(self, kills: int, chance: random.Random) -> Iterator[Blow]:
        (up,) = self.commands
        for number in range(kills):
            yield "musiclab up", up.kill
            if number % 4 == 2:
                yield kill_torchserve(self.settings, chance)

    def files(self) -> list[str]:
        return contents(self.settings.cache)


class ManyProcesses:
    """A model server, an API and two workers, which share PostgreSQL and a bucket.

    Attributes:
        store: the bucket, which is named after the folder, as the database is.
    """

    def __init__(
        self, settings: Settings, folder: Path, postgres: PostgresServer, s3: S3Server
    ) -> None:
        name = re.sub("[^a-z0-9]", "", folder.name)
        shared = {
            "database_url": postgres.create_database(name),
            "files_url": s3.create_bucket(name),
        }
        self.settings = settings.model_copy(update=shared)
        environment = s3.environment
        server = Command(("serve-model",), self.settings, None, folder / "serve-model.log")
        api = Command(("api",), self.settings, settings.api_port, folder / "api.log", environment)
        workers = [
            Command(
                ("worker",),
                self.settings.model_copy(update={"worker_port": port}),
                port,
                folder / f"worker-{number}.log",
                environment,
            )
            for number, port in enumerate(free_ports(2), 1)
        ]
        self.commands = [server, api, *workers]
        url = sa.make_url(self.settings.database_url).set(drivername="postgresql+psycopg")
        self.database = sa.create_engine(url, pool_pre_ping=True)
        self.store = S3Store(
            name,
            endpoint=environment["AWS_ENDPOINT_URL"],
            access_key_id=environment["AWS_ACCESS_KEY_ID"],
            secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region=environment["AWS_REGION"],
            client_options={"allow_http": True},
        )
        self._postgres = postgres

    def blows(self, kills: int, chance: random.Random) -> Iterator[Blow]:
        _, api, *workers = self.commands
        for number in range(kills):
            victim = chance.choice([api, *workers])
            yield f"musiclab {victim.words[0]}", victim.kill
            if number % 4 == 2:
                yield kill_torchserve(self.settings, chance)
            if number == 2 * kills // 3 and kills > 3:
                worker = chance.choice(workers)
                yield "a worker frozen past its lease", partial(freeze, worker)
            if number == kills // 2:
                yield "PostgreSQL restarted", self._postgres.restart

    def files(self) -> list[str]:
        return sorted({each["path"] for each in self.store.list().collect()} - {MARKER})


@contextmanager
def sqlite_system(settings: Settings, folder: Path) -> Iterator[System]:
    with started(OneProcess(settings, folder)) as system:
        yield system


@contextmanager
def postgresql_system(settings: Settings, folder: Path) -> Iterator[System]:
    with (
        postgres_server() as postgres,
        s3_server(folder / "s3") as s3,
        started(ManyProcesses(settings, folder, postgres, s3)) as system,
    ):
        yield system


SYSTEMS = {"sqlite": sqlite_system, "postgresql": postgresql_system}


@contextmanager
def started(system: AnySystem) -> Iterator[AnySystem]:
    """The system, while all its processes run."""
    try:
        for command in system.commands:
            command.start()
        wait_ready(*system.commands)
        yield system
    finally:
        system.database.dispose()
        for command in reversed(system.commands):
            command.stop()


def kill_torchserve(settings: Settings, chance: random.Random) -> Blow:
    """A blow to TorchServe, or to the Python process in which it runs the model."""
    name, program = chance.choice(list(TORCHSERVE.items()))

    def blow() -> None:
        for process in torchserve_processes(settings):
            if program in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(3 * WATCH_INTERVAL_S)  # by then it has been noticed

    return name, blow


def freeze(worker: Command) -> None:
    """Stop a worker for so long that others take its jobs over, then let it go on."""
    worker.freeze()
    time.sleep(LEASE_S + 5)
    worker.wake()


def contents(folder: Path) -> list[str]:
    """Every file below a folder, and every folder that has none."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name != MARKER and (not path.is_dir() or not any(path.iterdir()))
    )
