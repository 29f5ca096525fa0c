"""The schema on both databases: created, adopted from an earlier version, or rejected."""

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.database import migrate
from orchestrator.database.base import T
from orchestrator.database.engine import Database
from orchestrator.database.schema import (
    LAYOUT,
    VERSION_TABLE,
    identity,
    layout,
    metadata,
    submissions,
)
from orchestrator.errors import SettingsError
from tests.support.postgres import PostgresServer
from tests.support.project import PROJECT
from tests.support.tables import Backend, new_id

VERSIONS = sa.table(VERSION_TABLE, sa.column("version_num"))
ID = "0123456789abcdef" * 2
PROCESSES = 4

# Waits for a line on stdin, opens the database given by its arguments, and prints the result.
OPEN = """
import asyncio, sys
from pathlib import Path
from orchestrator.database.engine import Database

async def open_database():
    database = Database(sys.argv[1], Path(sys.argv[2]))
    await database.open()
    await database.close()
    print(database.id, "alembic" in sys.modules)

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(open_database())
"""
# The line appended to this runs just before the jobs table is created.
BEFORE_JOBS = """
import os, signal, time
import sqlalchemy as sa

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def interfere(_connection, _cursor, statement, *_):
    if "CREATE TABLE jobs" in statement:
"""
KILLED = f"{BEFORE_JOBS}        os.kill(os.getpid(), signal.SIGKILL)\n{OPEN}"
# Slow enough that all other processes start before the first one is done.
SLOW = f"{BEFORE_JOBS}        time.sleep(1)\n{OPEN}"


def run(backend: Backend, work: Callable[[sa.Connection], T]) -> T:
    """Runs `work` in a transaction on a database that is not opened; returns its result."""

    async def write() -> T:
        database = Database(backend.url, backend.file)
        try:
            return await database.write(work)
        finally:
            await database.close()

    return asyncio.run(write())


def open_and_get_id(backend: Backend) -> str:
    """Opens and closes the database; returns its id."""

    async def open_and_close() -> str:
        database = Database(backend.url, backend.file)
        await database.open()
        await database.close()
        return database.id

    return asyncio.run(open_and_close())


def table_names(backend: Backend) -> set[str]:
    return run(backend, lambda connection: set(sa.inspect(connection).get_table_names()))


def rows(backend: Backend, table: sa.FromClause) -> list[tuple[object, ...]]:
    return run(backend, lambda connection: [*map(tuple, connection.execute(sa.select(table)))])


def assert_schema_is_current(backend: Backend) -> None:
    """Asserts that the tables match schema.py and the newest revision is recorded."""

    def work(connection: sa.Connection) -> None:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        inspector = sa.inspect(connection)
        assert {*inspector.get_table_names()} == {*metadata.tables, VERSIONS.name}
        for table in metadata.tables.values():  # compare_metadata ignores primary keys
            key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key]

    run(backend, work)
    assert rows(backend, VERSIONS) == [(migrate.HEAD,)]
    assert rows(backend, layout) == [(LAYOUT,)]


def create_unversioned(connection: sa.Connection) -> None:
    """Creates the tables as MusicLab did before it used Alembic, and one row."""
    metadata.create_all(connection)
    connection.execute(sa.insert(layout).values(number=1))
    connection.execute(sa.insert(submissions).values(job_id="a", at=1.5, forget_at=2.5))


SUBMISSION_ROWS = [("a", None, 1.5, None, None, None, 2.5)]


def start(backend: Backend, code: str = OPEN) -> "subprocess.Popen[str]":
    """Starts a process that opens the database when `resume` is called."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, backend.url, str(backend.file)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def resume(*processes: "subprocess.Popen[str]") -> list[str]:
    """Resumes all processes at the same time; returns the output of each."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0] for process in processes]


def test_the_schema_is_created_in_an_empty_database(backend: Backend) -> None:
    database_id = open_and_get_id(backend)
    assert_schema_is_current(backend)
    assert rows(backend, identity) == [(database_id,)]
    assert open_and_get_id(backend) == database_id
    assert_schema_is_current(backend)


def test_the_constants_name_the_first_and_the_last_revision() -> None:
    script = ScriptDirectory.from_config(migrate.config())
    assert script.get_heads() == [migrate.HEAD]
    assert script.get_bases() == [migrate.BASELINE]


def test_no_revision_has_a_downgrade() -> None:
    """A downgrade would delete data; to return to an older version, restore a backup."""
    for script in ScriptDirectory.from_config(migrate.config()).walk_revisions():
        assert not hasattr(script.module, "downgrade")


def test_a_database_of_an_earlier_version_is_adopted(backend: Backend) -> None:
    def create(connection: sa.Connection) -> None:
        create_unversioned(connection)
        connection.execute(sa.insert(identity).values(id=ID))

    run(backend, create)
    assert open_and_get_id(backend) == ID
    assert_schema_is_current(backend)
    assert rows(backend, submissions) == SUBMISSION_ROWS
    assert rows(backend, identity) == [(ID,)]


def test_a_database_without_an_identity_is_adopted(backend: Backend) -> None:
    def create(connection: sa.Connection) -> None:
        create_unversioned(connection)
        identity.drop(connection)

    run(backend, create)
    database_id = open_and_get_id(backend)
    assert_schema_is_current(backend)
    assert rows(backend, submissions) == SUBMISSION_ROWS
    assert rows(backend, identity) == [(database_id,)]


def test_tables_left_by_an_interrupted_first_start_are_completed(
    backend: Backend,
) -> None:
    def create(connection: sa.Connection) -> None:
        for name in ("events", "identity"):
            metadata.tables[name].create(connection)

    run(backend, create)
    open_and_get_id(backend)
    assert_schema_is_current(backend)


@pytest.mark.parametrize("is_versioned", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda connection: connection.execute(sa.update(layout).values(number=2)),
        lambda connection: connection.execute(sa.delete(layout)),
        layout.drop,
    ],
    ids=["another number", "no number", "no table"],
)
def test_another_layout_is_rejected(
    backend: Backend, change: Callable[[sa.Connection], object], is_versioned: bool
) -> None:
    if is_versioned:
        open_and_get_id(backend)
    else:
        run(backend, create_unversioned)
    run(backend, change)
    before = table_names(backend)
    with pytest.raises(
        SettingsError,
        match="was created by another version of MusicLab; let that version finish its jobs, then "
        "delete the database",
    ):
        open_and_get_id(backend)
    assert table_names(backend) == before


def test_alembic_revisions_of_another_application_are_ignored(backend: Backend) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num varchar(32))"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('of another')"))

    run(backend, work)
    assert open_and_get_id(backend)
    other = sa.table("alembic_version", sa.column("version_num"))
    assert rows(backend, other) == [("of another",)]
    assert rows(backend, VERSIONS) == [(migrate.HEAD,)]


def test_a_role_that_cannot_create_tables_is_rejected(postgres: PostgresServer) -> None:
    url = postgres.create_database(f"test_{new_id()}")
    owner, role = Backend(url, Path()), f"reader_{new_id()}"

    def work(connection: sa.Connection) -> None:
        create_unversioned(connection)
        identity.create(connection, checkfirst=True)
        connection.execute(sa.text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(sa.text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"))

    run(owner, work)
    restricted = sa.make_url(url).set(username=role).render_as_string(hide_password=False)
    with pytest.raises(SettingsError, match=r"cannot be upgraded: permission denied for schema"):
        open_and_get_id(Backend(restricted, Path()))


def test_a_database_of_a_newer_version_is_rejected(backend: Backend) -> None:
    open_and_get_id(backend)
    run(
        backend,
        lambda connection: connection.execute(sa.update(VERSIONS).values(version_num="9999")),
    )
    name = "the database at MUSICLAB_DATABASE_URL" if backend.url else str(backend.file)
    with pytest.raises(SettingsError) as rejected:
        open_and_get_id(backend)
    assert str(rejected.value) == (
        f"{name} was created or upgraded by a newer version of MusicLab; run that version, or "
        "restore a backup from before the upgrade"
    )
    assert rows(backend, VERSIONS) == [("9999",)]


def test_processes_can_open_an_empty_postgresql_database_concurrently(
    postgres: PostgresServer,
) -> None:
    backend = Backend(postgres.create_database(new_id()), Path("unused"))
    processes = [start(backend, SLOW) for _ in range(PROCESSES)]
    outputs = {output.split()[0] for output in resume(*processes)}
    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert rows(backend, identity) == [tuple(outputs)]
    assert_schema_is_current(backend)


def test_tasks_can_open_an_empty_postgresql_database_concurrently(postgres: PostgresServer) -> None:
    url = postgres.create_database(new_id())

    async def open_all() -> set[str]:
        databases = [Database(url, Path("unused")) for _ in range(PROCESSES)]
        await asyncio.gather(*(database.open() for database in databases))
        for database in databases:
            await database.close()
        return {database.id for database in databases}

    ids = asyncio.run(open_all())
    assert rows(Backend(url, Path("unused")), identity) == [tuple(ids)]
    assert_schema_is_current(Backend(url, Path("unused")))


def test_a_process_killed_during_creation_leaves_no_tables(backend: Backend) -> None:
    process = start(backend, KILLED)
    resume(process)
    assert process.returncode == -signal.SIGKILL
    assert table_names(backend) == set()
    open_and_get_id(backend)
    assert_schema_is_current(backend)


def test_opening_imports_alembic_only_when_needed_and_prints_nothing(backend: Backend) -> None:
    """Importing Alembic takes longer than the rest of opening a database."""
    outputs = [resume(start(backend))[0] for _ in range(2)]
    database_id = open_and_get_id(backend)
    assert outputs == [f"{database_id} True\n", f"{database_id} False\n"]


def test_the_revisions_are_found_in_any_directory(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "100 %(here)s: own" / "migrations"
    shutil.copytree(migrate.MIGRATIONS, directory)
    monkeypatch.setattr(migrate, "MIGRATIONS", directory)
    open_and_get_id(backend)
    assert_schema_is_current(backend)
