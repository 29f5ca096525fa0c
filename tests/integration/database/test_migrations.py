"""The schema on both databases: created, adopted from earlier versions, or refused."""

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

# Opens the database of its arguments as soon as it may, and says what came of it.
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
# What follows is run as the table of the jobs is about to be created.
BEFORE_JOBS = """
import os, signal, time
import sqlalchemy as sa

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def interfere(_connection, _cursor, statement, *_):
    if "CREATE TABLE jobs" in statement:
"""
KILLED = f"{BEFORE_JOBS}        os.kill(os.getpid(), signal.SIGKILL)\n{OPEN}"
# So that all others begin before the first has ended.
SLOW = f"{BEFORE_JOBS}        time.sleep(1)\n{OPEN}"


def run(backend: Backend, work: Callable[[sa.Connection], T]) -> T:
    """What `work` returns, in a transaction on a database that is not opened."""

    async def write() -> T:
        database = Database(backend.url, backend.file)
        try:
            return await database.write(work)
        finally:
            await database.close()

    return asyncio.run(write())


def opened_id(backend: Backend) -> str:
    """The id of the database that was opened, and closed again."""

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


def assert_is_newest(backend: Backend) -> None:
    """The tables are those of schema.py, and the revision says so."""

    def work(connection: sa.Connection) -> None:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        inspector = sa.inspect(connection)
        assert {*inspector.get_table_names()} == {*metadata.tables, VERSIONS.name}
        for table in metadata.tables.values():  # which is not compared
            key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key]

    run(backend, work)
    assert rows(backend, VERSIONS) == [(migrate.HEAD,)]
    assert rows(backend, layout) == [(LAYOUT,)]


def create_unversioned(connection: sa.Connection) -> None:
    """The tables as versions before Alembic made them, and a row."""
    metadata.create_all(connection)
    connection.execute(sa.insert(layout).values(number=1))
    connection.execute(sa.insert(submissions).values(job_id="a", at=1.5, forget_at=2.5))


KEPT = [("a", None, 1.5, None, None, None, 2.5)]


def start(backend: Backend, code: str = OPEN) -> "subprocess.Popen[str]":
    """A process that opens the database when it is let go."""
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


def let_go(*processes: "subprocess.Popen[str]") -> list[str]:
    """What the processes write, which go on at the same time."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0] for process in processes]


def test_an_empty_database_gets_the_tables_of_the_schema(backend: Backend) -> None:
    database_id = opened_id(backend)
    assert_is_newest(backend)
    assert rows(backend, identity) == [(database_id,)]
    assert opened_id(backend) == database_id
    assert_is_newest(backend)


def test_the_constants_name_the_first_and_the_last_revision() -> None:
    script = ScriptDirectory.from_config(migrate.config())
    assert script.get_heads() == [migrate.HEAD]
    assert script.get_bases() == [migrate.BASELINE]


def test_no_revision_can_be_undone() -> None:
    """It would delete data; the way back to an older version is a backup."""
    for script in ScriptDirectory.from_config(migrate.config()).walk_revisions():
        assert not hasattr(script.module, "downgrade")


def test_a_database_of_an_earlier_version_is_adopted(backend: Backend) -> None:
    def create(connection: sa.Connection) -> None:
        create_unversioned(connection)
        connection.execute(sa.insert(identity).values(id=ID))

    run(backend, create)
    assert opened_id(backend) == ID
    assert_is_newest(backend)
    assert rows(backend, submissions) == KEPT
    assert rows(backend, identity) == [(ID,)]


def test_a_database_without_an_identity_is_adopted(backend: Backend) -> None:
    def create(connection: sa.Connection) -> None:
        create_unversioned(connection)
        identity.drop(connection)

    run(backend, create)
    database_id = opened_id(backend)
    assert_is_newest(backend)
    assert rows(backend, submissions) == KEPT
    assert rows(backend, identity) == [(database_id,)]


def test_what_an_earlier_version_left_when_killed_at_its_first_start_is_completed(
    backend: Backend,
) -> None:
    def create(connection: sa.Connection) -> None:
        for name in ("events", "identity"):
            metadata.tables[name].create(connection)

    run(backend, create)
    opened_id(backend)
    assert_is_newest(backend)


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
def test_another_layout_is_refused(
    backend: Backend, change: Callable[[sa.Connection], object], is_versioned: bool
) -> None:
    if is_versioned:
        opened_id(backend)
    else:
        run(backend, create_unversioned)
    run(backend, change)
    before = table_names(backend)
    with pytest.raises(
        SettingsError,
        match="was made by another version of MusicLab; let that version finish its jobs, then "
        "remove it",
    ):
        opened_id(backend)
    assert table_names(backend) == before


def test_the_revisions_of_another_application_do_not_matter(backend: Backend) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num varchar(32))"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('of another')"))

    run(backend, work)
    assert opened_id(backend)
    other = sa.table("alembic_version", sa.column("version_num"))
    assert rows(backend, other) == [("of another",)]
    assert rows(backend, VERSIONS) == [(migrate.HEAD,)]


def test_a_role_that_may_not_create_tables_is_refused(postgres: PostgresServer) -> None:
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
        opened_id(Backend(restricted, Path()))


def test_a_database_of_a_newer_version_is_refused(backend: Backend) -> None:
    opened_id(backend)
    run(
        backend,
        lambda connection: connection.execute(sa.update(VERSIONS).values(version_num="9999")),
    )
    name = "the database of MUSICLAB_DATABASE_URL" if backend.url else str(backend.file)
    with pytest.raises(SettingsError) as refused:
        opened_id(backend)
    assert str(refused.value) == (
        f"{name} was made by a newer version of MusicLab; run that version, or restore a backup "
        "from before the upgrade"
    )
    assert rows(backend, VERSIONS) == [("9999",)]


def test_processes_may_open_an_empty_postgresql_at_once(postgres: PostgresServer) -> None:
    backend = Backend(postgres.create_database(new_id()), Path("unused"))
    processes = [start(backend, SLOW) for _ in range(PROCESSES)]
    answers = {answer.split()[0] for answer in let_go(*processes)}
    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert rows(backend, identity) == [tuple(answers)]
    assert_is_newest(backend)


def test_tasks_may_open_an_empty_postgresql_at_once(postgres: PostgresServer) -> None:
    url = postgres.create_database(new_id())

    async def open_all() -> set[str]:
        databases = [Database(url, Path("unused")) for _ in range(PROCESSES)]
        await asyncio.gather(*(database.open() for database in databases))
        for database in databases:
            await database.close()
        return {database.id for database in databases}

    ids = asyncio.run(open_all())
    assert rows(Backend(url, Path("unused")), identity) == [tuple(ids)]
    assert_is_newest(Backend(url, Path("unused")))


def test_a_process_that_is_killed_meanwhile_leaves_nothing(backend: Backend) -> None:
    process = start(backend, KILLED)
    let_go(process)
    assert process.returncode == -signal.SIGKILL
    assert table_names(backend) == set()
    opened_id(backend)
    assert_is_newest(backend)


def test_nothing_is_written_and_alembic_imported_where_it_is_needed(backend: Backend) -> None:
    """Its import takes longer than all the rest of opening a database."""
    answers = [let_go(start(backend))[0] for _ in range(2)]
    database_id = opened_id(backend)
    assert answers == [f"{database_id} True\n", f"{database_id} False\n"]


def test_the_revisions_are_found_in_any_folder(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "100 %(here)s: own" / "migrations"
    shutil.copytree(migrate.MIGRATIONS, folder)
    monkeypatch.setattr(migrate, "MIGRATIONS", folder)
    opened_id(backend)
    assert_is_newest(backend)
