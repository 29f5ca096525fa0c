"""All of MusicLab in one foreground process: the API with its worker, TorchServe below it."""

import asyncio
import signal
from collections.abc import Callable

from aiohttp import web

from orchestrator.app import create_app
from orchestrator.errors import ModelServerError
from orchestrator.keys import WATCH
from orchestrator.model_server import ModelServer
from orchestrator.settings import Settings
from orchestrator.torchserve import ModelStatus

CHECK_S = 0.5
SHUTDOWN_S = 5.0


async def serve(
    settings: Settings, server: ModelServer, on_ready: Callable[[ModelStatus], None]
) -> None:
    """Serve until SIGINT or SIGTERM; nothing is left running afterwards.

    The API answers before the model is ready: jobs wait. A TorchServe that ends is started again.

    Args:
        settings: where the API listens, and everything else.
        server: TorchServe with its archive, not started yet.
        on_ready: is told what serves, once the model is ready.

    Raises:
        MusicLabError: a port or folder is in use, or the model cannot be loaded.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = create_app(settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    server.start()
    try:
        await runner.setup()
        await _listen(runner, settings)
        watching = asyncio.create_task(_keep_serving(app, server, on_ready))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if watching.done():
            watching.result()
        watching.cancel()
    finally:
        await runner.cleanup()
        await asyncio.to_thread(server.stop)


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.api_host, settings.api_port).start()
    except OSError as error:
        raise ModelServerError(
            f"the API cannot listen on {settings.api_host}:{settings.api_port} "
            f"({error.strerror}); stop what uses it, or set MUSICLAB_API_PORT to a free port"
        ) from error


async def _keep_serving(
    app: web.Application, server: ModelServer, on_ready: Callable[[ModelStatus], None]
) -> None:
    ready = False
    while True:
        await asyncio.sleep(CHECK_S)
        status = app[WATCH].status
        if status.ready and not ready:
            on_ready(status)
            ready = True
        if not ready and (fault := server.load_fault()):
            raise ModelServerError(f"the model did not load: {fault}")
        if not server.is_running():
            if not ready:
                raise ModelServerError(f"TorchServe ended; see {server.folder / 'logs'}")
            server.stop()
            server.start()
