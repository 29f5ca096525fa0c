"""The two ways to run MusicLab, and the faults injected into each."""

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

# The name of a fault, and a function that injects it.
Fault = tuple[str, Callable[[], None]]


class System(Protocol):
    """MusicLab with all its processes.

    Attributes:
        settings: settings of the API.
        commands: all its processes, in start order.
        database: its database.
    """

    settings: Settings
    commands: list[Command]
    database: sa.Engine

    def faults(self, kills: int, rng: random.Random) -> Iterator[Fault]:
        """`kills` kills of MusicLab's own processes, with other faults in between."""

    def files(self) -> list[str]:
        """All stored job files, as `music_<job>/<name>`, and empty directories.

        Includes files in quarantine, but not the marker.
        """


class OneProcess:
    """`musiclab up`, with a SQLite database and a local directory of job files."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.commands = [Command(("up",), settings, settings.api_port, folder / "up.log")]
        self.database = sa.create_engine(f"sqlite:///{settings.database_file}")

    def faults(self, kills: int, rng: random.Random) -> Iterator[Fault]:
        (up,) = self.commands
        for number in range(kills):
            yield "musiclab up", up.kill
            if number % 4 == 2:
                yield kill_torchserve(self.settings, rng)

    def files(self) -> list[str]:
        return contents(self.settings.cache)


class ManyProcesses:
    """A model server, an API and two `musiclab worker` processes; uses PostgreSQL and a bucket.

    Attributes:
        store: the bucket; the bucket and the database are named after `folder`.
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

    def faults(self, kills: int, rng: random.Random) -> Iterator[Fault]:
        _, api, *workers = self.commands
        for number in range(kills):
            victim = rng.choice([api, *workers])
            yield f"musiclab {victim.words[0]}", victim.kill
            if number % 4 == 2:
                yield kill_torchserve(self.settings, rng)
            if number == 2 * kills // 3 and kills > 3:
                worker = rng.choice(workers)
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
    """Start all processes of a system, and stop them at the end."""
    try:
        for command in system.commands:
            command.start()
        wait_ready(*system.commands)
        yield system
    finally:
        system.database.dispose()
        for command in reversed(system.commands):
            command.stop()


def kill_torchserve(settings: Settings, rng: random.Random) -> Fault:
    """A fault that kills TorchServe or its Python worker process."""
    name, program = rng.choice(list(TORCHSERVE.items()))

    def kill() -> None:
        for process in torchserve_processes(settings):
            if program in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(3 * WATCH_INTERVAL_S)  # until the watcher has detected it

    return name, kill


def freeze(worker: Command) -> None:
    """Suspend a `musiclab worker` until its leases have expired, then resume it."""
    worker.freeze()
    time.sleep(LEASE_S + 5)
    worker.resume()


def contents(folder: Path) -> list[str]:
    """All files below a directory, and all empty directories."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name != MARKER and (not path.is_dir() or not any(path.iterdir()))
    )
