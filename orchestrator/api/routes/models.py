"""The loaded model versions, and the disabled chat endpoint."""

from aiohttp import web

from orchestrator.api.app_keys import WATCHER
from orchestrator.api.auth import require_api_key
from orchestrator.api.errors import RequestError

routes = web.RouteTableDef()


@routes.get("/api/models")
@require_api_key
async def models(request: web.Request) -> web.Response:
    """Lists the loaded model versions."""
    return web.json_response(
        {
            "models": [
                {
                    "version": loaded.version,
                    "default": loaded.default,
                    "workers": loaded.workers,
                    "workers_ready": loaded.ready,
                    "device": loaded.device,
                    "codec": loaded.codec,
                    "checkpoint": loaded.checkpoint,
                }
                for loaded in request.app[WATCHER].status.versions
            ]
        }
    )


@routes.post("/api/chat")
async def chat(request: web.Request) -> web.Response:
    """Deliberately disabled; always returns 501."""
    raise RequestError("chat_inactive", "Chat is not available in this service", status=501)
