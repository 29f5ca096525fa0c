"""Brings the tables of a database to the revision that this code works with.

Alembic applies the revisions. Its contexts are global variables, so one process migrates one
database at a time.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from orchestrator.database.schema import LAYOUT, VERSION_TABLE, layout
from orchestrator.errors import SettingsError

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
# The newest revision. A constant, so that Alembic, whose import takes a tenth of a second, is
# imported only where there is something to do.
HEAD = "0001"
# That of the tables as versions without Alembic made them.
BASELINE = "0001"

_stored = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))
# As in the baseline; some versions before that made all tables but this one.
_identity = sa.Table("identity", sa.MetaData(), sa.Column("id", sa.String(32), primary_key=True))


def migrate(connection: sa.Connection, name: str) -> None:
    """Create the tables, or apply the revisions that they lack; keeps all rows.

    Args:
        connection: within a transaction, which is neither committed nor rolled back, and during
            which no other process migrates the same database.
        name: of the database, for the errors.

    Raises:
        SettingsError: the database was made by a version that this one does not know.
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
        except sa.exc.ProgrammingError as error:  # as for a role that may not create tables
            reason = str(error.orig).partition("\n")[0]
            raise SettingsError(f"the tables of {name} cannot be upgraded: {reason}") from error


def config(connection: sa.Connection | None = None) -> "Config":
    """Alembic's configuration; it needs no file."""
    from alembic.config import Config

    made = Config(attributes={"connection": connection})
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return made


def _check_revisions(revisions: set[str], name: str) -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config()).walk_revisions()
    if revisions - {script.revision for script in scripts}:
        raise SettingsError(
            f"{name} was made by a newer version of MusicLab; run that version, or restore a "
            "backup from before the upgrade"
        )


def _check_layout(connection: sa.Connection, tables: set[str], name: str) -> None:
    found = None
    if layout.name in tables:
        found = connection.execute(sa.select(layout.c.number)).scalar()
    if found != LAYOUT:
        raise SettingsError(
            f"{name} was made by another version of MusicLab; let that version finish its jobs, "
            "then remove it"
        )


def _apply_revisions(connection: sa.Connection, *, has_baseline: bool) -> None:
    """Upgrade to the newest revision; `has_baseline` where a version without Alembic made the
    tables.
    """
    from alembic import command

    if has_baseline:
        command.stamp(config(connection), BASELINE)
    command.upgrade(config(connection), "head")
