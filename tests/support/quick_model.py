"""A fake model server that responds immediately, for tests that run many jobs.

The real TorchServe, which other tests use, takes seconds per job. The fake has the same API and
the same response formats.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import create_app
from orchestrator.settings import Settings
from tests.support.signals import SEGMENT, encoded, noise

VERSION = "quick"
BATCH_SIZE = 4
MUSIC = encoded(noise(SEGMENT, 3))
INFO = (
    'musiclab_model_info{{model_version="{}",'
    'device="cpu",codec="starter",checkpoint="starter"}} 1.0\n'
)
VERSIONS = web.AppKey("VERSIONS", list[str])

Predict = Callable[[web.Request], Awaitable[web.StreamResponse]]
Client = TestClient[web.Request, web.Application]


def app_of(client: Client) -> web.Application:
    assert client.app is not None
    return client.app


async def _describe(request: web.Request) -> web.Response:
    loaded = request.app[VERSIONS]
    if not loaded:
        return web.Response(status=404)
    workers = [{"status": "READY", "pid": 1}]
    described = [
        {
            "modelVersion": version,
            "batchSize": BATCH_SIZE,
            "workers": workers,
            "jobQueueStatus": {"pendingRequests": 0},
        }
        for version in (loaded if request.path.endswith("/all") else loaded[:1])
    ]
    return web.json_response(described)


async def _metrics(request: web.Request) -> web.Response:
    lines = [INFO.format(version) for version in request.app[VERSIONS]]
    return web.Response(text="".join(["# TYPE musiclab_model_info gauge\n", *lines]))


async def _predict(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=MUSIC)


def _application(predict: Predict, versions: list[str]) -> web.Application:
    app = web.Application(client_max_size=2**24)
    app[VERSIONS] = versions
    app.router.add_get("/models/musiclab", _describe)
    app.router.add_get("/models/musiclab/all", _describe)
    app.router.add_get("/metrics", _metrics)
    app.router.add_post("/predictions/musiclab/{version}", predict)
    return app


@asynccontextmanager
async def quick_model(
    settings: Settings, predict: Predict = _predict, versions: list[str] | None = None
) -> AsyncIterator[Settings]:
    """Run the fake model server, and return the settings with its address.

    Args:
        settings: settings of the API.
        predict: handles an inference request.
        versions: the loaded versions, default version first; may be modified while the server is
            running. Only VERSION if omitted.
    """
    loaded = [VERSION] if versions is None else versions
    async with TestServer(_application(predict, loaded)) as model:
        ports = ("inference_port", "management_port", "metrics_port")
        yield settings.model_copy(update=dict.fromkeys(ports, model.port))


@asynccontextmanager
async def quick_api(
    settings: Settings, predict: Predict = _predict, versions: list[str] | None = None
) -> AsyncIterator[Client]:
    """A client of the whole API, whose worker uses quick_model(); takes the same arguments."""
    async with (
        quick_model(settings, predict, versions) as connected,
        TestClient(TestServer(create_app(connected))) as client,
    ):
        yield client
