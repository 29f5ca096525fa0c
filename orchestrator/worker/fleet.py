"""Shares the state of all workers' model servers through the database.

Hosts that serve the API therefore need no model server.
"""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from orchestrator.concurrency import run_periodically
from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, workers
from orchestrator.errors import DatabaseUnavailableError
from orchestrator.jobs.table import SHORT_RETRY_TIMEOUT_S
from orchestrator.serving.status import LoadedVersion, ModelStatus
from orchestrator.serving.watcher import ModelWatcher

INTERVAL_S = 1.0
HEARTBEAT_TIMEOUT_S = 10.0  # after which a silent worker is considered dead


class Heartbeat:
    """Writes the status of this worker's model server to the database every second."""

    def __init__(self, database: Database, owner: str, watcher: ModelWatcher) -> None:
        self._database = database
        self._owner = owner
        self._watcher = watcher

    async def run(self) -> None:
        """Sends heartbeats until cancelled, then removes this worker's row."""
        try:
            await run_periodically(self._beat, INTERVAL_S, "heartbeat failed")
        finally:
            await self._database.write(self._sign_off, SHORT_RETRY_TIMEOUT_S)

    async def _beat(self) -> None:
        await self._database.write(self._upsert, SHORT_RETRY_TIMEOUT_S)

    def _upsert(self, connection: sa.Connection) -> None:
        values = {"seen_at": NOW, "status": self._watcher.status.to_json()}
        own_row = workers.c.id == self._owner
        updated = connection.execute(sa.update(workers).where(own_row).values(values))
        if not updated.rowcount:
            connection.execute(sa.insert(workers).values(values | {"id": self._owner}))
        # Also delete the rows of workers that died without signing off.
        gone = workers.c.seen_at < NOW - 10 * HEARTBEAT_TIMEOUT_S
        connection.execute(sa.delete(workers).where(gone))

    def _sign_off(self, connection: sa.Connection) -> None:
        connection.execute(sa.delete(workers).where(workers.c.id == self._owner))


class Fleet:
    """Queries the model versions of all workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has(self, version: str) -> bool:
        """Returns whether any worker on any host has loaded a model version.

        Always False on a database that is not shared: this worker is the only one.
        """
        if not self._database.is_shared:
            return False
        reports = await self._database.read(_reports)
        return any(report.find(version) for report in reports)


class FleetWatcher:
    """Reads the status of all workers' model servers every second.

    Attributes:
        status: merged status of all model servers.
    """

    def __init__(self, database: Database) -> None:
        self.status = ModelStatus(ready=False, reason="the workers have not been queried yet")
        self._database = database

    async def run(self) -> None:
        """Polls until cancelled."""
        await run_periodically(self._poll, INTERVAL_S, "reading the workers' heartbeats failed")

    async def _poll(self) -> None:
        try:
            self.status = merged(await self._database.read(_reports, SHORT_RETRY_TIMEOUT_S))
        except DatabaseUnavailableError as error:
            self.status = ModelStatus(ready=False, reason=str(error))
            raise
        except Exception:
            self.status = ModelStatus(
                ready=False, reason="the status of the workers could not be read"
            )
            raise


def _reports(connection: sa.Connection) -> list[ModelStatus]:
    alive = workers.c.seen_at > NOW - HEARTBEAT_TIMEOUT_S
    rows = connection.execute(sa.select(workers.c.status).where(alive).order_by(workers.c.id))
    return [ModelStatus.from_json(status) for status in rows.scalars()]


def merged(reports: Sequence[ModelStatus]) -> ModelStatus:
    """Merges reports: ready if any is ready, with the versions that any of them has loaded."""
    if not reports:
        return ModelStatus(ready=False, reason="no worker is running")
    leading = next((report for report in reports if report.ready), reports[0])
    versions: dict[str, LoadedVersion] = {}
    for report in (leading, *(other for other in reports if other is not leading)):
        for loaded in report.versions:
            known = versions.get(loaded.version)
            versions[loaded.version] = (
                # The leading report determines the default version.
                replace(loaded, default=loaded.default and report is leading)
                if known is None
                else replace(
                    known,
                    workers=known.workers + loaded.workers,
                    ready=known.ready + loaded.ready,
                )
            )
    return replace(leading, versions=tuple(versions.values()))
