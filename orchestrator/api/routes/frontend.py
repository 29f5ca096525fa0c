"""Serves the page that `npm run build` creates: index.html and the files next to it.

Files are read for every request, so a rebuilt page is served immediately. The content security
policy is defined in one place, the meta element that the build writes into index.html.
"""

import asyncio
import html
import re
from pathlib import Path

from aiohttp import hdrs, web

from orchestrator.api.app_keys import SETTINGS

routes = web.RouteTableDef()

# Matches the percent-encoded path. Without %, / or a leading dot it cannot leave the directory.
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

# The name of an asset contains a hash of its content.
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in DENIED),
}


def prefers_page(request: web.Request) -> bool:
    """Returns whether Accept ranks text/html at least as high as JSON; `*/*` is ignored."""
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
    """Returns the page with its content security policy; None if no page is built."""
    index = request.app[SETTINGS].page_index
    try:
        text = await asyncio.to_thread(index.read_text, "utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    stated = [" ".join(html.unescape(content).split()) for content in POLICY.findall(text)]
    policy = "; ".join([*stated, "frame-ancestors 'none'"])  # not allowed in a meta element
    own = {
        "Content-Security-Policy": policy,
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": REVALIDATE,
    }
    return web.FileResponse(index, headers=HEADERS | own)


@routes.get(f"/assets/{NAME}")
async def asset(request: web.Request) -> web.FileResponse:
    return await _file(request, "assets", IMMUTABLE)


@routes.get(f"/{NAME_WITH_DOT}")
async def file(request: web.Request) -> web.FileResponse:
    return await _file(request, "", REVALIDATE)


async def _file(request: web.Request, folder: str, caching: str) -> web.FileResponse:
    """Returns a file, or its precompressed variant if the client accepts that encoding."""
    settings = request.app[SETTINGS]
    path = settings.page / folder / request.match_info["file"]
    # index.html is served at / only, with all its headers.
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
    """Returns whether `path` is a file inside `root`, after resolving links."""
    return path.is_file() and path.resolve().is_relative_to(root.resolve())
