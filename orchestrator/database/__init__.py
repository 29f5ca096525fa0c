"""SQLite or PostgreSQL, and the schema."""
