"""A fake TorchServe that loads a version immediately, and that can fail or stop at a given step.

tests/integration/releases/test_deployment.py tests deployments to the real TorchServe, which takes
seconds per step and cannot be stopped in the middle of a given step. The fake has the same
management API and response formats, and keeps its versions in memory.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from orchestrator.archives.archive import MANIFEST, TORCHSERVE_MANIFEST, archive_path
from orchestrator.settings import Settings
from tests.support.signals import SEGMENT, encoded, noise

MUSIC = encoded(noise(SEGMENT, 1))
KEY = "k"
METHODS = ("GET", "POST", "PUT", "DELETE")

Response = tuple[int, bytes]
Hook = Callable[[], Response | None]


class HttpServer(ThreadingHTTPServer):
    """Serves the responses of a function on a free port; None closes the connection instead."""

    daemon_threads = True  # do not wait for requests whose client has disconnected

    def __init__(self, respond: Callable[[str, str], Response | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                response = respond(self.command, self.path)
                if response is not None:
                    status, body = response
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        for method in METHODS:
            setattr(Handler, f"do_{method}", Handler.handle_any)
        super().__init__(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self.serve_forever, args=(0.005,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def end(self) -> None:
        """Stop the server; later connections are refused."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of disconnected clients, as after a timeout."""


class QuickTorchServe:
    """The management and the inference API, on one port.

    Attributes:
        settings: settings with the address of this server.
        ready: for each loaded version, True if its worker is ready.
        default: the default version; None if no version is loaded.
        pending: for each version, the number of requests in its queue.
        loads: True if the workers of a newly registered version become ready.
        at: functions to call at the beginning of a step: "describe", "register", "predict",
            "set-default" or "unregister". A result other than None replaces the response.
    """

    def __init__(self, settings: Settings) -> None:
        self.ready: dict[str, bool] = {}
        self.default: str | None = None
        self.pending: dict[str, int] = {}
        self.loads = True
        self.at: dict[str, Hook] = {}
        self._ended = False
        self._server = HttpServer(self._respond)
        ports = dict.fromkeys(("inference_port", "management_port"), self._server.server_port)
        self.settings = settings.model_copy(update=ports)

    def serve(self, *versions: str) -> None:
        """Load these versions; the first becomes the default."""
        self.ready, self.default = dict.fromkeys(versions, True), versions[0]

    def forget(self, version: str) -> None:
        """Unregister a version, as another client would."""
        self.ready.pop(version, None)

    def end(self) -> None:
        """Stop as if killed: the current request gets no response, and later ones are refused."""
        if not self._ended:
            self._ended = True
            self._server.end()

    def _respond(self, method: str, path: str) -> Response | None:
        address = urlsplit(path)
        step, version = _step(method, address.path)
        response = self.at[step]() if step in self.at else None
        if self._ended or response is not None:
            return response
        if step == "register":
            return self._register(parse_qs(address.query)["url"][0])
        if step == "describe":
            return self._describe(everything=version == "all")
        if version not in self.ready:
            return _rejection(404, f"Model version: {version} does not exist for model: musiclab")
        if step == "predict":
            return 200, MUSIC
        if step == "set-default":
            self.default = version
        elif version == self.default and len(self.ready) > 1:
            return _rejection(403, f"Cannot remove default version {version} for model musiclab")
        else:
            del self.ready[version]
        return _status("done")

    def _register(self, name: str) -> Response:
        with zipfile.ZipFile(self.settings.model_store / name) as file:
            version = json.loads(file.read(TORCHSERVE_MANIFEST))["model"]["modelVersion"]
        if version in self.ready:
            return _rejection(409, f"Model version {version} is already registered for musiclab")
        self.ready[version] = False
        self.default = self.default or version
        return _status(f'Model "musiclab" Version: {version} registered with 1 initial workers')

    def _describe(self, everything: bool) -> Response:
        if self.default is None:
            return _rejection(404, "Model not found: musiclab")
        described = [
            {
                "modelVersion": version,
                "batchSize": 1,
                "workers": [{"status": "READY" if self.ready[version] else "UNLOADING", "pid": 1}],
                "jobQueueStatus": {"pendingRequests": self.pending.get(version, 0)},
            }
            for version in (list(self.ready) if everything else [self.default])
        ]
        if everything and self.loads:  # versions that are loading are ready at the next poll
            self.ready = dict.fromkeys(self.ready, True)
        return 200, json.dumps(described).encode()


def _step(method: str, path: str) -> tuple[str, str]:
    """The requested step, and the version in the path."""
    kind, *rest = path.strip("/").split("/")
    if kind == "predictions":
        return "predict", rest[1]
    steps = {"GET": "describe", "POST": "register", "PUT": "set-default", "DELETE": "unregister"}
    return steps[method], rest[1] if len(rest) > 1 else ""


def _status(sentence: str) -> Response:
    return 200, json.dumps({"status": sentence}).encode()


def _rejection(status: int, sentence: str) -> Response:
    return status, json.dumps({"code": status, "type": "Refused", "message": sentence}).encode()


@contextmanager
def quick_torchserve(settings: Settings) -> Iterator[QuickTorchServe]:
    """A fake with a key file and a model store with "a", "b" and "c"; version "a" is loaded.

    No orchestrator is running at the configured address.
    """
    settings.model_server_dir.mkdir(parents=True)
    keys = {kind: {"key": KEY} for kind in ("management", "inference", "API")}
    settings.key_file.write_text(json.dumps(keys))
    for version in ("a", "b", "c"):
        small_archive(settings.model_store, version)
    server = QuickTorchServe(settings)
    server.serve("a")
    try:
        yield server
    finally:
        server.end()


@contextmanager
def responding(respond: Callable[[str, str], Response | None]) -> Iterator[str]:
    """The URL of a server whose responses are computed by a function of method and path."""
    server = HttpServer(respond)
    try:
        yield server.url
    finally:
        server.end()


def small_archive(
    store: Path,
    version: str,
    torchserve: object = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive that contains only its manifests, which suffice for these tests.

    Args:
        store: directory of the model store.
        version: version in the file name and in musiclab.json.
        torchserve: `model` in TorchServe's manifest; by default matches `version`.
        compression: a compression constant of zipfile.
    """
    store.mkdir(parents=True, exist_ok=True)
    archive = archive_path(store, version)
    facts = {
        "version": version,
        "checkpoint": {"starter": True},
        "codec": {"kind": "starter"},
    }
    model = torchserve or {"modelName": "musiclab", "modelVersion": version}
    with zipfile.ZipFile(archive, "w", compression) as file:
        file.writestr(MANIFEST, json.dumps(facts))
        file.writestr(TORCHSERVE_MANIFEST, json.dumps({"model": model}))
    return archive
