"""Upgrades the tables of a database to the revision that this version requires.

Alembic applies the revisions. It keeps its context in global variables, so a process can migrate
only one database at a time.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from orchestrator.database.schema import LAYOUT, VERSION_TABLE, layout
from orchestrator.errors import SettingsError

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
# The newest revision. A constant, so that Alembic, which takes 0.1 s to import, is imported only if
# the database needs an upgrade.
HEAD = "0001"
# The revision that matches the tables created by versions without Alembic.
BASELINE = "0001"

_stored = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))
# As in the baseline revision. Some versions without Alembic created all tables except this one.
_identity = sa.Table("identity", sa.MetaData(), sa.Column("id", sa.String(32), primary_key=True))


def migrate(connection: sa.Connection, name: str) -> None:
    """Creates the tables or applies the missing revisions. Keeps all rows.

    Args:
        connection: a connection with an open transaction, which is neither committed nor rolled
            back. No other process may migrate the same database during the transaction.
        name: name of the database, for error messages.

    Raises:
        SettingsError: the database was created by an incompatible version, or cannot be upgraded.
    """
    tables = set(sa.inspect(connection).get_table_names())
    revisions: set[str] = set()
    if _stored.name in tables:
        revisions = set(connection.execute(sa.select(_stored.c.version_num)).scalars())
    if revisions - {HEAD}:
        _check_revisions(revisions, name)
    if "jobs" in tables or revisions:
        _check_layout(connection, tables, name)
        if _identity.name not in tables:
            _identity.create(connection)
    if revisions != {HEAD}:
        try:
            _apply_revisions(connection, has_baseline="jobs" in tables and not revisions)
        except sa.exc.ProgrammingError as error:  # for example, the role may not create tables
            reason = str(error.orig).partition("\n")[0]
            raise SettingsError(f"the tables of {name} cannot be upgraded: {reason}") from error


def config(connection: sa.Connection | None = None) -> "Config":
    """Returns Alembic's configuration, which needs no file."""
    from alembic.config import Config

    configuration = Config(attributes={"connection": connection})
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return configuration


def _check_revisions(revisions: set[str], name: str) -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config()).walk_revisions()
    if revisions - {script.revision for script in scripts}:
        raise SettingsError(
            f"{name} was created or upgraded by a newer version of MusicLab; run that version, or "
            "restore a backup from before the upgrade"
        )


def _check_layout(connection: sa.Connection, tables: set[str], name: str) -> None:
    found = None
    if layout.name in tables:
        found = connection.execute(sa.select(layout.c.number)).scalar()
    if found != LAYOUT:
        raise SettingsError(
            f"{name} was created by another version of MusicLab; let that version finish its jobs, "
            "then delete the database"
        )


def _apply_revisions(connection: sa.Connection, *, has_baseline: bool) -> None:
    """Upgrades to the newest revision.

    `has_baseline` is set if a version without Alembic created the tables.
    """
    from alembic import command

    if has_baseline:
        command.stamp(config(connection), BASELINE)
    command.upgrade(config(connection), "head")
