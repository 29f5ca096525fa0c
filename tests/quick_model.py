"""A model server that answers at once, for tests of bookkeeping that need thousands of jobs.

The real TorchServe takes seconds a job; all other tests use it. This one describes itself and
answers as that does.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.app import create_app
from orchestrator.settings import Settings
from tests.signals import SEGMENT, encoded, noise

VERSION = "quick"
BATCH_SIZE = 4
MUSIC = encoded(noise(SEGMENT, 3))
METRICS = (
    f'# TYPE musiclab_model_info gauge\nmusiclab_model_info{{model_version="{VERSION}",'
    'device="cpu",codec="starter",checkpoint="starter"} 1.0\n'
)

Predict = Callable[[web.Request], Awaitable[web.StreamResponse]]
Client = TestClient[web.Request, web.Application]


async def _describe(request: web.Request) -> web.Response:
    worker = {"status": "READY", "pid": 1}
    described = {"modelVersion": VERSION, "batchSize": BATCH_SIZE, "workers": [worker]}
    return web.json_response([described])


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(text=METRICS)


async def _predict(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=MUSIC)


def _application(predict: Predict) -> web.Application:
    app = web.Application(client_max_size=2**24)
    app.router.add_get("/models/musiclab", _describe)
    app.router.add_get("/models/musiclab/all", _describe)
    app.router.add_get("/metrics", _metrics)
    app.router.add_post("/predictions/musiclab/{version}", predict)
    return app


@asynccontextmanager
async def quick_model(settings: Settings, predict: Predict = _predict) -> AsyncIterator[Settings]:
    """The same settings with the quick model's address."""
    async with TestServer(_application(predict)) as model:
        ports = ("inference_port", "management_port", "metrics_port")
        yield settings.model_copy(update=dict.fromkeys(ports, model.port))


@asynccontextmanager
async def with_quick_model(
    settings: Settings, predict: Predict = _predict
) -> AsyncIterator[Client]:
    """A client of the whole API, whose worker asks the quick model."""
    async with (
        quick_model(settings, predict) as here,
        TestClient(TestServer(create_app(here))) as client,
    ):
        yield client
