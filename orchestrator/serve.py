"""Runs the processes of MusicLab: all in one, or the API, worker and TorchServe separately."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Any

from aiohttp import web

from orchestrator.api.app import create_app, create_worker_app
from orchestrator.api.app_keys import SETTINGS, WATCHER, WORKER
from orchestrator.audio.ffmpeg import find_ffmpeg
from orchestrator.errors import SettingsError
from orchestrator.releases.supervisor import CHECK_INTERVAL_S, Supervisor
from orchestrator.serving.process import TorchServe
from orchestrator.serving.status import ModelStatus
from orchestrator.settings import Settings

SHUTDOWN_S = 5.0


async def serve(
    settings: Settings, server: TorchServe, on_ready: Callable[[ModelStatus], None]
) -> None:
    """Serves everything until SIGINT or SIGTERM; leaves no process running afterwards.

    The API accepts jobs before the model is ready. TorchServe is restarted whenever it exits.

    Args:
        settings: all settings, such as the address of the API.
        server: TorchServe with its archives, not started yet.
        on_ready: called with the model's status once the model is ready.

    Raises:
        MusicLabError: a port or directory is in use, or the model cannot be loaded.
    """
    app = create_app(settings)
    supervisor = Supervisor(server)
    # Blocks the event loop, which serves nothing yet. Must run in the main thread, which outlives
    # TorchServe.
    server.start()
    try:
        supervising = partial(_supervise, app, server, supervisor, on_ready)
        await _run(app, "API", settings.api_host, settings.api_port, supervising)
    finally:
        await asyncio.to_thread(supervisor.stop)


async def serve_orchestrator(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Serves the API with its worker; TorchServe runs in another process."""
    announce = partial(_announce, on_ready)
    app = create_app(settings)
    await _run(app, "API", settings.api_host, settings.api_port, announce)


async def serve_api(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Serves only the API; workers on any host run the jobs.

    Raises:
        SettingsError: MUSICLAB_DATABASE_URL is not set.
    """
    _require_shared_database(settings, "api")
    announce = partial(_announce, on_ready)
    app = create_app(settings, runs_jobs=False)
    await _run(app, "API", settings.api_host, settings.api_port, announce)


async def serve_worker(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Runs jobs accepted by an API on any host, with the TorchServe on this host.

    Raises:
        SettingsError: MUSICLAB_DATABASE_URL is not set.
    """
    _require_shared_database(settings, "worker")
    announce = partial(_announce, on_ready)
    app = create_worker_app(settings)
    await _run(app, "WORKER", settings.worker_host, settings.worker_port, announce)


def _require_shared_database(settings: Settings, command: str) -> None:
    if not settings.database_url:
        raise SettingsError(
            f"`musiclab {command}` needs a database that several processes can share: set "
            "MUSICLAB_DATABASE_URL to postgresql://user:password@host:port/database, or run "
            "everything in one process with `musiclab up`"
        )


async def _run(
    app: web.Application,
    name: str,
    host: str,
    port: int,
    background: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Serves an application with a background task until the task fails or a signal arrives.

    After a signal, running jobs have a grace period, which a second signal ends.
    """
    find_ffmpeg()  # raises at startup if ffmpeg is missing, not at the first track
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, None)
    # aiohttp would decompress bodies before any check; compressed bodies are rejected instead.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, auto_decompress=False)
    tasks: set[asyncio.Task[None]] = set()
    try:
        await runner.setup()
        await _bind(runner, name, host, port)
        # Exempts existing objects from garbage collection. Otherwise every full collection would
        # traverse all modules and block the event loop for 50 to 100 ms.
        gc.collect()
        gc.freeze()
        tasks |= {asyncio.create_task(background()), asyncio.create_task(signals.get())}
        await _first_done(tasks)
        if WORKER in app:
            # The API keeps responding meanwhile.
            grace = app[WORKER].finish(app[SETTINGS].grace_s)
            ending = {asyncio.create_task(grace), asyncio.create_task(signals.get())}
            tasks |= ending
            await _first_done(ending)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()


async def _first_done(tasks: set[asyncio.Task[None]]) -> None:
    """Waits until one of the tasks is done; raises its exception, if any."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _bind(runner: web.AppRunner, name: str, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SettingsError(
            f"cannot bind {host}:{port} ({error.strerror}); stop the program that uses it, or set "
            f"MUSICLAB_{name}_PORT to a free port"
        ) from error


async def _announce(on_ready: Callable[[], None]) -> None:
    on_ready()
    await asyncio.Event().wait()


async def _supervise(
    app: web.Application,
    server: TorchServe,
    supervisor: Supervisor,
    on_ready: Callable[[ModelStatus], None],
) -> None:
    """Waits until the model is ready, then restarts TorchServe whenever it exits.

    Raises:
        ModelServerError: the model did not load, or TorchServe could not be restarted.
    """
    watcher = app[WATCHER]
    while not (status := watcher.status).ready:
        await asyncio.to_thread(server.raise_if_failed)
        await asyncio.sleep(CHECK_INTERVAL_S)
    on_ready(status)
    try:
        await _in_daemon_thread(partial(supervisor.run, lambda: watcher.status.versions))
    finally:
        supervisor.request_stop()  # the watcher is about to end, so its status becomes stale


def _in_daemon_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Runs blocking work in a daemon thread; cancelling the future does not stop the work.

    The thread is a daemon so that the process can exit while the work hangs, for example on a disk.
    """
    outcome: Future[None] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    Thread(target=run, daemon=True).start()
    return asyncio.wrap_future(outcome)
