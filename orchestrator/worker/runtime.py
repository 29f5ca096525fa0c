"""Assembles a worker and its background tasks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from orchestrator.concurrency import background_tasks
from orchestrator.database.engine import Database
from orchestrator.jobs.cleanup import Cleanup
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.table import JobTable
from orchestrator.observability.metrics import Metrics
from orchestrator.serving.inference import InferenceClient
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.watcher import ModelWatcher
from orchestrator.settings import Settings
from orchestrator.storage.base import JobStorage
from orchestrator.worker.attempt import Dependencies
from orchestrator.worker.fleet import Fleet, Heartbeat
from orchestrator.worker.worker import Worker


@asynccontextmanager
async def running_worker(
    settings: Settings, database: Database, storage: JobStorage, leases: Leases, metrics: Metrics
) -> AsyncIterator[tuple[ModelWatcher, Worker]]:
    """Runs jobs during the block, using the TorchServe at MUSICLAB_MODEL_HOST."""
    async with aiohttp.ClientSession() as session:
        tokens = Tokens(settings.key_file, settings.management_url)
        watcher = ModelWatcher(session, settings, tokens)
        cleanup = Cleanup(database, storage, settings.keep_hours * 3600)
        dependencies = Dependencies(
            leases=leases,
            storage=storage,
            inference=InferenceClient(session, settings.inference_url, tokens, watcher),
            watcher=watcher,
            fleet=Fleet(database),
            metrics=metrics,
        )
        worker = Worker(JobTable(database), cleanup, dependencies)
        parts = [watcher.run(), cleanup.run()]
        if database.is_shared:
            parts.append(Heartbeat(database, leases.owner, watcher).run())
        async with background_tasks(*parts):
            working = asyncio.create_task(worker.run())
            yield watcher, worker
            await worker.finish(0)
            await working
