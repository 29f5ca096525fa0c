"""The PostgreSQL engine: a server shared by many processes."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator.database.base import T, Work
from orchestrator.errors import SettingsError

# A process that freezes or loses its network within a transaction must not lock rows forever, and
# a connection to an unreachable host must time out. The names are those of libpq and PostgreSQL.
OPTIONS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "options": "-c idle_in_transaction_session_timeout=10s -c lock_timeout=10s",
}
# An arbitrary number unique to MusicLab. The lock serializes transactions that check a limit and
# then write.
ADVISORY_LOCK = 0x6D75736963


class PostgreSQL:
    """An engine for a PostgreSQL server.

    Raises:
        SettingsError: the URL is not a PostgreSQL URL.
    """

    name = "the database at MUSICLAB_DATABASE_URL"

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            parsed = None
        if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
            raise SettingsError(
                "MUSICLAB_DATABASE_URL must be postgresql://user:password@host:port/database"
            )
        self._engine = create_async_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args=OPTIONS,
            pool_size=8,
            max_overflow=8,
            pool_pre_ping=True,
        )

    async def read(self, work: Work[T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Work[T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    def serialize(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))

    async def close(self) -> None:
        await self._engine.dispose()
