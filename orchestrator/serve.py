"""The processes of MusicLab: everything in one, or API, worker and TorchServe apart."""

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
    """Serve everything until SIGINT or SIGTERM; nothing is left running afterwards.

    The API answers before the model is ready: jobs wait. TorchServe is restarted whenever it exits.

    Args:
        settings: where the API listens, and everything else.
        server: TorchServe with its archive, not started yet.
        on_ready: called with what serves, once the model is ready.

    Raises:
        MusicLabError: a port or folder is in use, or the model cannot be loaded.
    """
    app = create_app(settings)
    supervisor = Supervisor(server)
    # Blocks the event loop while nothing is served yet; the main thread outlasts TorchServe.
    server.start()
    try:
        supervising = partial(_supervise, app, server, supervisor, on_ready)
        await _run(app, "API", settings.api_host, settings.api_port, supervising)
    finally:
        await asyncio.to_thread(supervisor.stop)


async def serve_orchestrator(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Serve the API with its worker; TorchServe runs elsewhere."""
    announce = partial(_announce, on_ready)
    app = create_app(settings)
    await _run(app, "API", settings.api_host, settings.api_port, announce)


async def serve_api(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Serve the API alone; workers on any host run the jobs.

    Raises:
        SettingsError: there is no database that processes can share.
    """
    _require_shared_database(settings, "api")
    announce = partial(_announce, on_ready)
    app = create_app(settings, runs_jobs=False)
    await _run(app, "API", settings.api_host, settings.api_port, announce)


async def serve_worker(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Run jobs that were accepted by an API on any host, with the TorchServe of this one.

    Raises:
        SettingsError: there is no database that processes can share.
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
            "everything in one process by `musiclab up`"
        )


async def _run(
    app: web.Application,
    name: str,
    host: str,
    port: int,
    background: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Serve an application with a background task, until that fails or a signal comes.

    Running jobs then have their grace time, which a second signal ends.
    """
    find_ffmpeg()  # raises now where there is none, not when the first track comes
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, None)
    # aiohttp would decompress bodies before any check; compressed ones are refused instead.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, auto_decompress=False)
    tasks: set[asyncio.Task[None]] = set()
    try:
        await runner.setup()
        await _bind(runner, name, host, port)
        # Objects that exist by now stay. Without this, every full garbage collection traverses all
        # modules, which blocks the event loop for 50 to 100 ms.
        gc.collect()
        gc.freeze()
        tasks |= {asyncio.create_task(background()), asyncio.create_task(signals.get())}
        await _first_done(tasks)
        if WORKER in app:
            # The API goes on answering meanwhile.
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
    """Wait until one of the tasks is done; raise its exception."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _bind(runner: web.AppRunner, name: str, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SettingsError(
            f"{host}:{port} cannot be listened on ({error.strerror}); stop what uses it, or set "
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
    """Wait for the model to be ready, then restart TorchServe whenever it exits.

    Raises:
        ModelServerError: the model did not load, or TorchServe could not be restarted.
    """
    watcher = app[WATCHER]
    while not (status := watcher.status).ready:
        await asyncio.to_thread(server.raise_if_failed)
        await asyncio.sleep(CHECK_INTERVAL_S)
    on_ready(status)
    try:
        await _in_own_thread(partial(supervisor.run, lambda: watcher.status.versions))
    finally:
        supervisor.request_stop()  # the watcher is about to end, and what it saw last grows old


def _in_own_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Run blocking work in a thread of its own; cancelling the future does not end it.

    A daemon thread, as the process must be able to end while the work hangs, as a disk may.
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
