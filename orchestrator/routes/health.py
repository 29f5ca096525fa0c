"""Whether this process is well, for people, load balancers and Prometheus."""

from datetime import UTC, datetime

import prometheus_client
import sqlalchemy as sa
from aiohttp import web

from orchestrator.errors import RequestError
from orchestrator.keys import DATABASE, METRICS, WATCH

routes = web.RouteTableDef()

READY_PATIENCE_S = 1.0


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Alive, and what is known of the model server; asks nobody, so it answers at once."""
    model = request.app[WATCH].status
    return web.json_response(
        {
            "status": "healthy" if model.ready else "degraded",
            "reason": model.reason,
            "model_loaded": model.ready,
            "encodec_loaded": model.ready,
            "device": model.device,
            "model_version": model.version,
            "codec": model.codec,
            "checkpoint": model.checkpoint,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
    )


@routes.get("/ready")
async def ready(request: web.Request) -> web.Response:
    """Whether a job that is sent now would be run now."""
    model = request.app[WATCH].status
    if not model.ready:
        raise RequestError("model_not_ready", f"No model is ready: {model.reason}", status=503)
    await request.app[DATABASE].read(_ask, READY_PATIENCE_S)
    return web.json_response({"status": "ready", "model_version": model.version})


def _ask(connection: sa.Connection) -> None:
    connection.execute(sa.select(1))


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    await request.app[METRICS].look(request.app[DATABASE], request.app[WATCH].status)
    text = prometheus_client.generate_latest(request.app[METRICS].registry)
    return web.Response(body=text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})
