"""Alembic's environment: `versions` holds the revisions of the schema.

A change to `schema.py` requires a new revision here, and `migrate.HEAD` must name it; tests check
that the three agree. A released revision is never changed and imports nothing from MusicLab. There
is no `downgrade`: undoing a revision would delete data. To return to an older version, restore a
backup.
"""
