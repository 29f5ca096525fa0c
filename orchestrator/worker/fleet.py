"""What all workers see of their model servers, told through the database.

Hosts that serve the API need no model server of their own.
"""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from orchestrator.concurrency import run_periodically
from orchestrator.database.engine import Database
from orchestrator.database.schema import NOW, workers
from orchestrator.errors import DatabaseUnavailableError
from orchestrator.jobs.table import READ_PATIENCE_S
from orchestrator.serving.status import LoadedVersion, ModelStatus
from orchestrator.serving.watcher import ModelWatcher

INTERVAL_S = 1.0
SILENT_S = 10.0  # a worker not heard of for so long is gone


class Heartbeat:
    """Tells the fleet every second what this worker's watch sees."""

    def __init__(self, database: Database, owner: str, watcher: ModelWatcher) -> None:
        self._database = database
        self._owner = owner
        self._watcher = watcher

    async def run(self) -> None:
        """Report until cancelled, and sign off."""
        try:
            await run_periodically(self._beat, INTERVAL_S, "heartbeat failed")
        finally:
            await self._database.write(self._sign_off, READ_PATIENCE_S)

    async def _beat(self) -> None:
        await self._database.write(self._upsert, READ_PATIENCE_S)

    def _upsert(self, connection: sa.Connection) -> None:
        values = {"seen_at": NOW, "status": self._watcher.status.to_json()}
        us = workers.c.id == self._owner
        updated = connection.execute(sa.update(workers).where(us).values(values))
        if not updated.rowcount:
            connection.execute(sa.insert(workers).values(values | {"id": self._owner}))
        # Whoever died without signing off.
        gone = workers.c.seen_at < NOW - 10 * SILENT_S
        connection.execute(sa.delete(workers).where(gone))

    def _sign_off(self, connection: sa.Connection) -> None:
        connection.execute(sa.delete(workers).where(workers.c.id == self._owner))


class Fleet:
    """What other workers, if there are any, can do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has(self, version: str) -> bool:
        """Whether a worker on any host has a version of the model loaded."""
        if not self._database.is_shared:
            return False
        reports = await self._database.read(_reports)
        return any(report.find(version) for report in reports)


class FleetWatcher:
    """Looks every second at what the workers report.

    Attributes:
        status: of all model servers together.
    """

    def __init__(self, database: Database) -> None:
        self.status = ModelStatus(ready=False, reason="the workers were not asked yet")
        self._database = database

    async def run(self) -> None:
        """Watch until cancelled."""
        await run_periodically(self._poll, INTERVAL_S, "the workers' heartbeats were not read")

    async def _poll(self) -> None:
        try:
            self.status = merged(await self._database.read(_reports, READ_PATIENCE_S))
        except DatabaseUnavailableError as error:
            self.status = ModelStatus(ready=False, reason=str(error))
            raise
        except Exception:
            self.status = ModelStatus(ready=False, reason="the workers were not understood")
            raise


def _reports(connection: sa.Connection) -> list[ModelStatus]:
    heard_of = workers.c.seen_at > NOW - SILENT_S
    rows = connection.execute(sa.select(workers.c.status).where(heard_of).order_by(workers.c.id))
    return [ModelStatus.from_json(status) for status in rows.scalars()]


def merged(reports: Sequence[ModelStatus]) -> ModelStatus:
    """One status for all: ready when one is, with every version that any of them has loaded."""
    if not reports:
        return ModelStatus(ready=False, reason="no worker is running")
    leading = next((report for report in reports if report.ready), reports[0])
    versions: dict[str, LoadedVersion] = {}
    for report in (leading, *(other for other in reports if other is not leading)):
        for loaded in report.versions:
            known = versions.get(loaded.version)
            versions[loaded.version] = (
                # Which one is the default is for the leading report to say.
                replace(loaded, default=loaded.default and report is leading)
                if known is None
                else replace(
                    known,
                    workers=known.workers + loaded.workers,
                    ready=known.ready + loaded.ready,
                )
            )
    return replace(leading, versions=tuple(versions.values()))
