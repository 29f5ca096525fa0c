"""The entry page and the OpenAPI contract of the service."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import swagger_ui_bundle
import yaml
from aiohttp import hdrs, web

from orchestrator.api.routes.frontend import built_page, prefers_page

routes = web.RouteTableDef()

CONTRACT: dict[str, Any] = yaml.load(
    Path(__file__).resolve().parent.parent.joinpath("openapi.yaml").read_text(),
    yaml.CSafeLoader,  # ten times as fast; every command loads the contract
)
DOCS_SCRIPT = """
window.ui = SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset], layout: "BaseLayout"});
"""


@routes.get("/")
async def index(request: web.Request) -> web.StreamResponse:
    """Returns the page to browsers, and a JSON description of the service to programs."""
    page = await built_page(request) if prefers_page(request) else None
    response = page or web.json_response(
        {
            "service": "MusicLab",
            "version": version("musiclab"),
            "endpoints": {
                f"{method.upper()} {path}": operation["summary"]
                for path, operations in CONTRACT["paths"].items()
                for method, operation in operations.items()
                if method != "parameters"
            },
        }
    )
    response.headers["Vary"] = f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}"
    return response


@routes.get("/openapi.json")
async def openapi(request: web.Request) -> web.Response:
    return web.json_response(CONTRACT)


@routes.get("/docs")
@routes.get("/docs/")
async def docs(request: web.Request) -> web.Response:
    """Redirects to Swagger UI, which shows the contract."""
    raise web.HTTPFound("/docs/index.html")


@routes.get("/docs/swagger-initializer.js")
async def docs_script(request: web.Request) -> web.Response:
    """Configures Swagger UI, whose files come from its package, with this contract."""
    return web.Response(text=DOCS_SCRIPT, content_type="text/javascript")


routes.static("/docs", swagger_ui_bundle.swagger_ui_path)
