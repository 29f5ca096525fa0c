"""The page and its files, served by the API."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from orchestrator.api.app import create_app
from orchestrator.settings import Settings
from tests.support.quick_model import Client

POLICY = "default-src 'none'; script-src 'self'"
ESCAPED_POLICY = POLICY.replace("'", "&#39;")  # as Vite writes it
INDEX = f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta http-equiv="Content-Security-Policy" content="{ESCAPED_POLICY}">
  <title>MusicLab</title>
</head>
</html>
"""
SCRIPT = b"console.log('a page');\n" * 100
GZIPPED = gzip.compress(SCRIPT, mtime=0)
BROTLI = b"stands in for brotli"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A built page, and a secret file outside its directory."""
    directory = tmp_path / "dist"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text(INDEX)
    (directory / "index.html.gz").write_bytes(gzip.compress(INDEX.encode()))
    (directory / "icon.svg").write_text("<svg/>")
    (directory / "assets" / "main-B1x_9.js").write_bytes(SCRIPT)
    (directory / "assets" / "main-B1x_9.js.gz").write_bytes(GZIPPED)
    (directory / "assets" / "main-B1x_9.js.br").write_bytes(BROTLI)
    (directory / "assets" / "directory.js").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (directory / "link.txt").symlink_to(tmp_path / "secret.txt")
    return directory


@pytest.fixture
async def site(settings: Settings, page: Path) -> AsyncIterator[Client]:
    """A client of the API that serves the page."""
    app = create_app(settings.model_copy(update={"page": page}))
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER, "text/html"),
        ("text/html", "text/html"),
        ("application/json;q=0.5, text/html;level=1;q=0.7", "text/html"),
        ("TEXT/HTML, application/json", "text/html"),
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("text/html;q=0", "application/json"),
        ("text/html;q=1.2.3", "application/json"),
        ("text/htmlx, x", "application/json"),
    ],
)
async def test_browsers_get_the_page_and_other_clients_get_json(
    site: Client, accept: str | None, kind: str
) -> None:
    headers = {"Accept-Encoding": "identity"}
    if accept is not None:
        headers["Accept"] = accept
    skipped = () if accept is not None else ("Accept",)
    async with site.get("/", headers=headers, skip_auto_headers=skipped) as response:
        assert (response.status, response.content_type) == (200, kind)
        assert response.headers["Vary"] == "Accept, Accept-Encoding, Origin"
        if kind == "text/html":
            assert await response.text() == INDEX
        else:
            assert (await response.json())["service"] == "MusicLab"


async def test_the_page_has_security_headers_and_is_compressed(site: Client) -> None:
    headers = {"Accept": BROWSER, "Accept-Encoding": "gzip, br"}
    response = await site.get("/", headers=headers)
    assert response.headers["Content-Security-Policy"] == f"{POLICY}; frame-ancestors 'none'"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "microphone=()" in response.headers["Permissions-Policy"]
    assert response.charset == "utf-8"
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await response.read()).decode() == INDEX
    headers["If-None-Match"] = response.headers["ETag"]
    assert (await site.get("/", headers=headers)).status == 304


async def test_a_page_that_is_built_later_is_served_without_a_restart(
    site: Client, page: Path
) -> None:
    index = page / "index.html"
    index.unlink()
    response = await site.get("/", headers={"Accept": BROWSER})
    assert response.content_type == "application/json"
    index.write_text(INDEX.replace(ESCAPED_POLICY, "default-src 'self'"))
    response = await site.get("/", headers={"Accept": BROWSER})
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; frame-")


@pytest.mark.parametrize(
    ("accepted", "encoding", "content"),
    [("gzip, deflate", "gzip", GZIPPED), ("gzip, br", "br", BROTLI), ("identity", None, SCRIPT)],
)
async def test_assets_are_compressed_and_cached_permanently(
    site: Client, accepted: str, encoding: str | None, content: bytes
) -> None:
    address, headers = "/assets/main-B1x_9.js", {"Accept-Encoding": accepted}
    response = await site.get(address, headers=headers)
    assert response.status == 200
    assert response.content_type.endswith("/javascript")
    assert response.headers.get("Content-Encoding") == encoding
    assert response.headers["Vary"] == "Accept-Encoding, Origin"
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert await response.read() == content
    headers["If-None-Match"] = response.headers["ETag"]
    assert (await site.get(address, headers=headers)).status == 304
    assert (await site.head(address)).status == 200


async def test_other_files_are_revalidated(site: Client) -> None:
    response = await site.get("/icon.svg")
    assert (response.status, response.content_type) == (200, "image/svg+xml")
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/nothing.txt",
        "/index.html",
        "/assets/nothing.js",
        "/assets/",
        "/assets/directory.js",
        "/assets",
        "/link.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/%2e%2e%2findex.html",
        "/assets/..%5csecret.txt",
        "/assets/%2Fetc%2Fpasswd",
        "/assets/x%00.js",
        f"/{'x' * 300}.js",
        f"/assets/{'x' * 300}.js",
    ],
)
async def test_other_paths_are_not_found(site: Client, path: str) -> None:
    url = URL(f"{site.make_url('/')}".rstrip("/") + path, encoded=True)
    async with site.session.get(url) as response:
        assert response.status == 404, await response.text()
        assert (await response.json())["code"] == "not_found"


async def test_metrics_have_no_labels_for_single_files(site: Client) -> None:
    for path in ("/assets/main-B1x_9.js", "/assets/another.js", "/icon.svg", "/x.php"):
        await site.get(path)
    metrics = await (await site.get("/metrics")).text()
    counted = "musiclab_http_requests_total"
    for route in ("/assets/{file}", "/{file}"):
        for status in (200, 404):
            labels = f'{{method="GET",route="{route}",status="{status}"}}'
            assert f"{counted}{labels} 1.0" in metrics
    assert "main-B1x_9" not in metrics and "php" not in metrics
