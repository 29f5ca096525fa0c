"""Run by Alembic: applies revisions on the connection, and in the transaction, of the caller."""

from alembic import context

from orchestrator.database.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
