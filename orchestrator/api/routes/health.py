"""Health, readiness and metrics of this process."""

from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from orchestrator.api.app_keys import DATABASE, METRICS, SETTINGS, STORAGE, WATCHER
from orchestrator.api.errors import RequestError
from orchestrator.api.gauges import collect_gauges

routes = web.RouteTableDef()

READY_TIMEOUT_S = 1.0


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Returns the last known status of the model server, without querying other services."""
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
    """Checks that a job submitted now could run: a model is ready and the database reachable."""
    model = request.app[WATCHER].status
    if not model.ready:
        raise RequestError("model_not_ready", f"No model is ready: {model.reason}", status=503)
    await request.app[DATABASE].ping(READY_TIMEOUT_S)
    return web.json_response({"status": "ready", "model_version": model.version})


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Returns the metrics; omits those of the jobs while the database is unreachable."""
    app = request.app
    gauges = await collect_gauges(app[DATABASE], app[STORAGE], app[WATCHER].status, app[SETTINGS])
    text = generate_latest(app[METRICS].registry) + generate_latest(gauges)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
