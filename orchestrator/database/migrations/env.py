"""Run by Alembic: applies revisions on the caller's connection, within its transaction."""

from alembic import context

from orchestrator.database.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
