"""The page: index.html, and the files beside it, as `npm run build` left them.

They are looked for with every request, so that a page that is built anew is served at once. Its
content security policy has one source, the meta element that the build writes into it.
"""

import asyncio
import html
import re
from pathlib import Path

from aiohttp import hdrs, web

from orchestrator.api.app_keys import SETTINGS

routes = web.RouteTableDef()

# As the path has it, still quoted: without %, / and a dot in front nobody gets out of the folder.
NAME = r"{file:[\w-][\w.-]{0,199}}"
NAME_WITH_DOT = r"{file:[\w-][\w-]{0,99}\.[\w.-]{1,99}}"

ACCEPTED = re.compile(r"([^\s;,]+/[^\s;,]+)\s*(?:;[^,]*?\bq\s*=\s*([\d.]+))?")
POLICY = re.compile(
    r'<meta\s+http-equiv="?Content-Security-Policy"?\s+content="([^"]*)"', re.IGNORECASE
)
DENIED = (
    *("accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "hid"),
    *("magnetometer", "microphone", "midi", "payment", "serial", "usb"),
)

# The name of an asset has a hash of what is in it.
FOR_GOOD = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in DENIED),
}


def prefers_page(request: web.Request) -> bool:
    """Whether the client names HTML, and does not like JSON better; `*/*` names nothing."""
    weights: dict[str, float] = {}
    for kind, weight in ACCEPTED.findall(",".join(request.headers.getall(hdrs.ACCEPT, []))):
        weights[kind.lower()] = _number(weight) if weight else 1.0
    page = weights.get("text/html", 0.0)
    return page > 0 and page >= weights.get("application/json", 0.0)


def _number(weight: str) -> float:
    try:
        return float(weight)
    except ValueError:
        return 0.0


async def built_page(request: web.Request) -> web.FileResponse | None:
    """The page and its policy; None where none is built."""
    index = request.app[SETTINGS].page_index
    try:
        text = await asyncio.to_thread(index.read_text, "utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    stated = [" ".join(html.unescape(content).split()) for content in POLICY.findall(text)]
    policy = "; ".join([*stated, "frame-ancestors 'none'"])  # which no meta element can state
    own = {
        "Content-Security-Policy": policy,
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": ASK_AGAIN,
    }
    return web.FileResponse(index, headers=HEADERS | own)


@routes.get(f"/assets/{NAME}")
async def asset(request: web.Request) -> web.FileResponse:
    return await _file(request, "assets", FOR_GOOD)


@routes.get(f"/{NAME_WITH_DOT}")
async def file(request: web.Request) -> web.FileResponse:
    return await _file(request, "", ASK_AGAIN)


async def _file(request: web.Request, folder: str, caching: str) -> web.FileResponse:
    """A file, or what lies compressed beside it if the client takes that."""
    settings = request.app[SETTINGS]
    path = settings.page / folder / request.match_info["file"]
    # The page has one address, at which it has all its headers.
    is_index = path.name == settings.page_index.name
    if is_index or not await asyncio.to_thread(_is_inside, path, settings.page):
        raise web.HTTPNotFound
    headers = {
        "Cache-Control": caching,
        "Vary": hdrs.ACCEPT_ENCODING,
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(path, headers=headers)


def _is_inside(path: Path, root: Path) -> bool:
    """Whether it is a file of the folder, and no link to one that is not."""
    return path.is_file() and path.resolve().is_relative_to(root.resolve())
