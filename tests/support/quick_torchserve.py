"""A TorchServe that loads a version at once, and ends or refuses when a test tells it to.

The real one is deployed to in tests/integration/releases/test_deployment.py. It takes seconds a
step, and cannot be made to end in the middle of a given one; this one describes itself and answers
as that does, and keeps its versions in memory.
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

Answer = tuple[int, bytes]
Hook = Callable[[], Answer | None]


class HttpServer(ThreadingHTTPServer):
    """Answers on a free port what a function says; None closes the connection without an answer."""

    daemon_threads = True  # one whose client has gone is not waited for

    def __init__(self, answer: Callable[[str, str], Answer | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answered = answer(self.command, self.path)
                if answered is not None:
                    status, body = answered
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
        """From now on, connections are refused."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Whose client has gone, as at a timeout, need not be told."""


class QuickTorchServe:
    """The management and the inference API, on one port.

    Attributes:
        settings: with its address.
        ready: by version that is loaded, whether a worker is.
        default: the version that serves; None where none is loaded.
        pending: by version, requests that wait in the queue.
        loads: whether the workers of a version that is registered become ready.
        at: what to do first when something is asked of it: "describe", "register", "predict",
            "set-default" or "unregister". An answer that is returned is given instead of its own.
    """

    def __init__(self, settings: Settings) -> None:
        self.ready: dict[str, bool] = {}
        self.default: str | None = None
        self.pending: dict[str, int] = {}
        self.loads = True
        self.at: dict[str, Hook] = {}
        self._ended = False
        self._server = HttpServer(self._answer)
        ports = dict.fromkeys(("inference_port", "management_port"), self._server.server_port)
        self.settings = settings.model_copy(update=ports)

    def serve(self, *versions: str) -> None:
        """Have these versions loaded, the first as the default."""
        self.ready, self.default = dict.fromkeys(versions, True), versions[0]

    def forget(self, version: str) -> None:
        """As if somebody else had unregistered it."""
        self.ready.pop(version, None)

    def end(self) -> None:
        """As if it was killed: this request is not answered, and later ones are refused."""
        if not self._ended:
            self._ended = True
            self._server.end()

    def _answer(self, method: str, path: str) -> Answer | None:
        address = urlsplit(path)
        step, version = _step(method, address.path)
        answer = self.at[step]() if step in self.at else None
        if self._ended or answer is not None:
            return answer
        if step == "register":
            return self._register(parse_qs(address.query)["url"][0])
        if step == "describe":
            return self._describe(everything=version == "all")
        if version not in self.ready:
            return _refusal(404, f"Model version: {version} does not exist for model: musiclab")
        if step == "predict":
            return 200, MUSIC
        if step == "set-default":
            self.default = version
        elif version == self.default and len(self.ready) > 1:
            return _refusal(403, f"Cannot remove default version {version} for model musiclab")
        else:
            del self.ready[version]
        return _said("done")

    def _register(self, name: str) -> Answer:
        with zipfile.ZipFile(self.settings.model_store / name) as file:
            version = json.loads(file.read(TORCHSERVE_MANIFEST))["model"]["modelVersion"]
        if version in self.ready:
            return _refusal(409, f"Model version {version} is already registered for musiclab")
        self.ready[version] = False
        self.default = self.default or version
        return _said(f'Model "musiclab" Version: {version} registered with 1 initial workers')

    def _describe(self, everything: bool) -> Answer:
        if self.default is None:
            return _refusal(404, "Model not found: musiclab")
        described = [
            {
                "modelVersion": version,
                "batchSize": 1,
                "workers": [{"status": "READY" if self.ready[version] else "UNLOADING", "pid": 1}],
                "jobQueueStatus": {"pendingRequests": self.pending.get(version, 0)},
            }
            for version in (list(self.ready) if everything else [self.default])
        ]
        if everything and self.loads:  # the next time, what is loading now will be loaded
            self.ready = dict.fromkeys(self.ready, True)
        return 200, json.dumps(described).encode()


def _step(method: str, path: str) -> tuple[str, str]:
    """What is asked for, and which version the address names."""
    kind, *rest = path.strip("/").split("/")
    if kind == "predictions":
        return "predict", rest[1]
    steps = {"GET": "describe", "POST": "register", "PUT": "set-default", "DELETE": "unregister"}
    return steps[method], rest[1] if len(rest) > 1 else ""


def _said(sentence: str) -> Answer:
    return 200, json.dumps({"status": sentence}).encode()


def _refusal(status: int, sentence: str) -> Answer:
    return status, json.dumps({"code": status, "type": "Refused", "message": sentence}).encode()


@contextmanager
def quick_torchserve(settings: Settings) -> Iterator[QuickTorchServe]:
    """One with its key file, which serves version "a" of a store that has "a", "b" and "c".

    Nobody is there where orchestrators would be.
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
def answering(answer: Callable[[str, str], Answer | None]) -> Iterator[str]:
    """The address of a server that answers what a function of method and path says."""
    server = HttpServer(answer)
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
    """An archive that holds its manifests alone, which is all that is read of it here.

    Args:
        store: the folder.
        version: of its name and its musiclab.json.
        torchserve: what TorchServe's manifest says of the model; by default the same.
        compression: as in zipfile.
    """
    store.mkdir(parents=True, exist_ok=True)
    archive = archive_path(store, version)
    facts = {
        "version": version,
        "checkpoint": {"starter": True},
        "codec": {"kind": "starter"},
    }
    known = torchserve or {"modelName": "musiclab", "modelVersion": version}
    with zipfile.ZipFile(archive, "w", compression) as file:
        file.writestr(MANIFEST, json.dumps(facts))
        file.writestr(TORCHSERVE_MANIFEST, json.dumps({"model": known}))
    return archive
