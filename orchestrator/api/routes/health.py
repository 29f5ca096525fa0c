"""Whether this process is well, for people, load balancers and Prometheus."""

from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from orchestrator.api.app_keys import DATABASE, METRICS, SETTINGS, STORAGE, WATCHER
from orchestrator.api.errors import RequestError
from orchestrator.api.gauges import collect_gauges

routes = web.RouteTableDef()

READY_PATIENCE_S = 1.0


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Alive, and what is known of the model server; asks nobody, so it answers at once."""
    model = request.app[WATCHER].status
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
    model = request.app[WATCHER].status
    if not model.ready:
        raise RequestError("model_not_ready", f"No model is ready: {model.reason}", status=503)
    await request.app[DATABASE].ping(READY_PATIENCE_S)
    return web.json_response({"status": "ready", "model_version": model.version})


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Served though the database is away, as that is when they are looked at."""
    app = request.app
    gauges = await collect_gauges(app[DATABASE], app[STORAGE], app[WATCHER].status, app[SETTINGS])
    text = generate_latest(app[METRICS].registry) + generate_latest(gauges)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
