"""Alembic's environment: `versions` holds the revisions of the schema.

A change of `schema.py` needs a new revision here, which `migrate.HEAD` names; tests hold the
three together. A released revision is never changed, and imports nothing of MusicLab. It has no
`downgrade`: undoing a revision would delete data, and the way back to an older version is a backup.
"""
