"""Fixtures shared by several test modules."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.archives import packing_inputs as inputs
from orchestrator.archives.packing import pack
from orchestrator.archives.packing_inputs import choose_inputs
from orchestrator.serving.process import TorchServe
from orchestrator.settings import Settings
from tests.support.model_client import ModelClient
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.project import PROJECT
from tests.support.s3 import S3Server, s3_server
from tests.support.service import Service, running
from tests.support.settings import settings_in, with_store_of
from tests.support.tables import Backend, Tables, new_id

# Compute-heavy tests run in parallel with others; see orchestrator/serving/process.py.
os.environ.setdefault("GOMP_SPINCOUNT", "300")
# TorchServe workers reuse the kernels compiled by earlier ones, even in other directories.
os.environ.setdefault("NUMBA_CACHE_DIR", str(PROJECT / ".cache" / "numba"))

# Fixtures that start a server or a browser, or prepare to start one. Tests that request one,
# directly or through other fixtures, are marked, and `make check` skips them.
SERVER_FIXTURES = {"client", "model_server", "packed", "postgres", "s3", "service", "shared"}
BROWSER_FIXTURES = {"browser"}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Prepare the process, which may be a pytest-xdist worker."""
    # A shell makes background jobs ignore SIGINT, which some tests send to their processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # UNIX sockets need short paths.
    if hasattr(config, "workerinput"):
        directory = Path(config.option.basetemp)
        config.option.basetemp = directory.with_name(directory.name.removeprefix("popen-"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the servers and browsers that their fixtures start."""
    for item in items:
        fixtures = getattr(item, "fixturenames", [])
        if not SERVER_FIXTURES.isdisjoint(fixtures):
            item.add_marker("servers")
        if not BROWSER_FIXTURES.isdisjoint(fixtures):
            item.add_marker("browser")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture(scope="session")
def starter_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose model store contains `starter_archive`."""
    return settings_in(tmp_path_factory.mktemp("starter"))


@pytest.fixture(scope="session")
def starter_archive(starter_settings: Settings) -> Path:
    """An archive of the current code with starter weights for the model and the codec."""
    inputs = choose_inputs(starter_settings)
    return pack(starter_settings, inputs, version="starter")


@pytest.fixture(scope="session")
def model_server(starter_settings: Settings, starter_archive: Path) -> Iterator[TorchServe]:
    """A real TorchServe with `starter_archive` as its default version."""
    with TorchServe(starter_settings, starter_archive) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def client(model_server: TorchServe) -> ModelClient:
    return ModelClient(model_server.settings, model_server.key_file)


@pytest.fixture
def packed(settings: Settings, starter_settings: Settings, starter_archive: Path) -> Settings:
    """Settings whose model store already contains the starter archive."""
    return with_store_of(starter_settings, settings)


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, starter_settings: Settings, starter_archive: Path
) -> Iterator[Service]:
    """A running `musiclab up` with starter weights."""
    (frontend,) = free_ports(1)
    origins = f"http://localhost:3000,http://127.0.0.1:{frontend}"
    chosen = {
        "cors_origins": origins,
        "rate_limit": 0,
        "reuse_results": False,
        "log_level": "debug",
    }
    own = settings_in(tmp_path_factory.mktemp("service")).model_copy(update=chosen)
    settings = with_store_of(starter_settings, own)
    with running(settings, "up"):
        yield Service(settings)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """An empty SQLite or PostgreSQL database."""
    url = ""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database(f"test_{new_id()}")
    return Backend(url, tmp_path / "jobs.sqlite")


@pytest.fixture
async def tables(backend: Backend) -> AsyncIterator[Tables]:
    """The tables of an empty SQLite or PostgreSQL database."""
    async with backend.opened() as tables:
        yield tables


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def changed_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str, str], None]:
    """A function that replaces text in the copy of handlers/ that is packed."""
    copy = tmp_path / "changed" / "handlers"
    shutil.copytree(PROJECT / "handlers", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(inputs, "HANDLERS", copy)

    def change(file: str, old: str, new: str) -> None:
        code = (copy / file).read_text()
        assert old in code, f"{file} no longer contains {old!r}; adapt the test"
        (copy / file).write_text(code.replace(old, new))

    return change
