"""The official weights: identified by their hash, loaded as in the encodec library, and fetched.

A file of random weights, whose name contains its own hash, replaces the official file.
"""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from urllib.error import HTTPError

import pytest
import torch

from handlers.codec import codec, encodec_network
from handlers.codec.codec import fetch_official, load_codec
from handlers.errors import CodecError

ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def replacement(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the format of the official one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        weights = encodec_network.build().state_dict()
    path = tmp_path_factory.mktemp("official") / "weights.th"
    torch.save(weights, path)
    return path.rename(path.with_name(name_of(path.read_bytes())))


@pytest.fixture
def official(replacement: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The replacement, configured as the expected official file."""
    monkeypatch.setattr(codec, "OFFICIAL_NAME", replacement.name)
    return replacement


def name_of(data: bytes) -> str:
    return f"encodec_24khz-{hashlib.sha256(data).hexdigest()[:8]}.th"


def test_the_output_matches_the_encodec_library(official: Path) -> None:
    loaded = load_codec(official, "official")
    library = encodec_network.build()
    library.load_state_dict(torch.load(official, weights_only=True))
    sound = 0.1 * torch.randn(2, 1, 9600, generator=torch.Generator().manual_seed(8))
    with torch.inference_mode():
        latents, expected_latents = loaded.encode(sound), library.encoder(sound)
        audio, expected_audio = loaded.decode(expected_latents), library.decoder(expected_latents)
    assert latents.shape == (2, 128, 30)
    assert audio.shape == sound.shape
    torch.testing.assert_close(latents, expected_latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(audio, expected_audio, rtol=0, atol=1e-5)
    assert any("weight_g" in name for name in library.state_dict())
    assert not any("weight_g" in name for name in loaded.state_dict())
    assert loaded.kind == "official"


def test_a_missing_file_is_rejected(official: Path, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=f"no codec weights at {tmp_path / official.name}"):
        load_codec(tmp_path / official.name, "official")


def test_a_file_with_the_wrong_hash_is_rejected(official: Path, tmp_path: Path) -> None:
    other = tmp_path / official.name
    other.write_bytes(official.read_bytes()[:-1])
    with pytest.raises(CodecError) as rejected:
        load_codec(other, "official")
    found = hashlib.sha256(other.read_bytes()).hexdigest()
    expected = official.stem.split("-")[1]
    assert not found.startswith(expected)
    for word in (official.name, found, f"start with {expected}", f"{other.stat().st_size:,} bytes"):
        assert word in str(rejected.value)


def test_the_right_hash_with_the_wrong_content_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.th"
    torch.save({"encoder.model.0.conv.conv.bias": torch.zeros(32)}, path)
    path = path.rename(path.with_name(name_of(path.read_bytes())))
    monkeypatch.setattr(codec, "OFFICIAL_NAME", path.name)
    with pytest.raises(CodecError, match=f"{path.name} does not contain EnCodec weights"):
        load_codec(path, "official")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The files, by name, of a local server that replaces the one of the encodec library."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path.removeprefix("/v0/"))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", ADDRESS)
    with ThreadingHTTPServer((ADDRESS, 0), Handler) as server:
        root = f"http://{ADDRESS}:{server.server_port}/v0/"
        monkeypatch.setattr(encodec_network, "ROOT_URL", root)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield files
        server.shutdown()
        thread.join()


@pytest.fixture
def small_file(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Bytes that replace the official file in tests that do not load it."""
    data = b"not really weights " * 1000
    monkeypatch.setattr(codec, "OFFICIAL_NAME", name_of(data))
    return data


def test_a_fetched_file_can_be_loaded(
    official: Path, served: dict[str, bytes], tmp_path: Path
) -> None:
    served[official.name] = official.read_bytes()
    path = fetch_official(tmp_path / "checkpoints")
    assert path == tmp_path / "checkpoints" / official.name
    assert path.read_bytes() == official.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == [official.name]
    assert load_codec(path, "official").kind == "official"


def test_an_existing_file_is_not_fetched_again(
    small_file: bytes, served: dict[str, bytes], tmp_path: Path
) -> None:
    served[codec.OFFICIAL_NAME] = small_file
    first = fetch_official(tmp_path)
    written = first.stat().st_mtime_ns
    served.clear()
    assert fetch_official(tmp_path) == first
    assert first.stat().st_mtime_ns == written
    assert first.read_bytes() == small_file


def test_a_damaged_file_is_fetched_again(
    small_file: bytes, served: dict[str, bytes], tmp_path: Path
) -> None:
    served[codec.OFFICIAL_NAME] = small_file
    (tmp_path / codec.OFFICIAL_NAME).write_bytes(small_file[:100])
    assert fetch_official(tmp_path).read_bytes() == small_file


def test_a_fetched_file_with_the_wrong_hash_is_rejected_and_deleted(
    small_file: bytes, served: dict[str, bytes], tmp_path: Path
) -> None:
    served[codec.OFFICIAL_NAME] = small_file[:-1]
    with pytest.raises(CodecError, match="not the official EnCodec file"):
        fetch_official(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_404_response_is_reported(
    small_file: bytes, served: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(CodecError, match=r"cannot download .*404.*some other way") as rejected:
        fetch_official(tmp_path)
    assert isinstance(rejected.value.__cause__, HTTPError)
    rejected.value.__cause__.close()
    assert str(tmp_path) in str(rejected.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_is_reported(
    small_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind((ADDRESS, 0))
        monkeypatch.setenv("no_proxy", ADDRESS)
        monkeypatch.setattr(
            encodec_network, "ROOT_URL", f"http://{ADDRESS}:{bound.getsockname()[1]}/v0/"
        )
        with pytest.raises(CodecError, match=r"cannot download .*refused.*no internet") as rejected:
            fetch_official(tmp_path)
    assert codec.OFFICIAL_NAME in str(rejected.value)
    assert list(tmp_path.iterdir()) == []


def test_a_response_that_is_not_http_is_reported(
    small_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():  # the whole request
                pass
            self.wfile.write(b"220 mail ready\r\n")

    monkeypatch.setenv("no_proxy", ADDRESS)
    with TCPServer((ADDRESS, 0), Handler) as server:
        root = f"http://{ADDRESS}:{server.server_address[1]}/v0/"
        monkeypatch.setattr(encodec_network, "ROOT_URL", root)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            with pytest.raises(CodecError, match="cannot download"):
                fetch_official(tmp_path)
        finally:
            thread.join()
    assert list(tmp_path.iterdir()) == []
