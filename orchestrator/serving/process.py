"""Runs TorchServe as a child process, isolated from other servers on the machine."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import structlog

from orchestrator.archives.archive import MODEL_NAME, environment_without_pythonpath, verify_archive
from orchestrator.archives.model_packages import require_packages
from orchestrator.errors import ArchiveError, ModelServerError, SettingsError
from orchestrator.filesystem import lock
from orchestrator.observability.logs import logs_json
from orchestrator.paths import PATHS
from orchestrator.serving.java import find_java
from orchestrator.serving.management import ManagementClient
from orchestrator.serving.tokens import Tokens
from orchestrator.serving.torchserve_log import WorkerLog
from orchestrator.settings import Settings

READY_TIMEOUT_S = 300  # startupTimeout of model-config.yaml
PORT_TIMEOUT_S = 3
POLL_S = 0.25
PORTS = (
    "inference_port",
    "management_port",
    "metrics_port",
    "grpc_inference_port",
    "grpc_management_port",
)
# TorchServe connects to its workers through UNIX sockets in its temporary directory; example name.
SOCKET_NAME = ".ts.sock.99999"
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
# Number of iterations that an idle OpenMP thread spins before it sleeps. By default it spins for
# milliseconds and blocks other processes that compute: two workers on the same cores, as during a
# deployment, then slow each other down by a factor of up to twenty. With this value a single worker
# is 0.5% slower (with OMP_WAIT_POLICY=PASSIVE, 50%), and two have 15 to 30% more throughput.
GOMP_SPINCOUNT = "1000"
PR_SET_PDEATHSIG = 1
# Loaded here because a forked child of a multi-threaded process must not load libraries.
PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
NICENESS = 10  # keeps the API responsive while the model uses all CPUs

log = structlog.get_logger()


class TorchServe:
    """A TorchServe process with its archives, in its own working and temporary directory.

    TorchServe's Python launcher is not used: it does not forward signals, and its PID file in the
    shared temporary directory allows only one server per machine.

    Attributes:
        archive: archive of the default version.
        manifest: manifest of that archive.
        folder: working directory, with `key_file.json`, `logs/` and `tmp/`.
        tokens: keys in `key_file.json`.
    """

    def __init__(self, settings: Settings, archive: Path, *additional: Path) -> None:
        self.settings = settings
        self.set_archives(archive, *additional)
        self.folder = settings.model_server_dir
        self.key_file = settings.key_file
        self.tokens = Tokens(self.key_file, settings.management_url)
        self.management = ManagementClient(self.tokens)
        self.log = WorkerLog(self.folder / "logs")
        self._log_start = 0
        self._forwards_log = logs_json(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    def set_archives(self, archive: Path, *additional: Path) -> None:
        """Sets the archives to load at the next start; the first is the default version.

        Additional archives that TorchServe could not read are skipped.

        Raises:
            ArchiveError: TorchServe could not read the first archive.
        """
        manifest = verify_archive(archive)
        names = [archive.name]
        for other in additional:
            try:
                verify_archive(other)
            except ArchiveError as error:
                log.error("additional version skipped", reason=str(error))
            else:
                names.append(other.name)
        self.archive, self.manifest, self._names = archive.resolve(), manifest, names

    def start(self) -> None:
        """Starts TorchServe; returns as soon as the process runs.

        On Linux, TorchServe is terminated when the calling thread ends for any reason. Call this
        from a thread that runs at least as long as TorchServe has to.

        Raises:
            ModelPackagesMissingError: packages required by the model are not installed.
            SettingsError: the path of the run directory is too long.
            ModelServerError: Java is missing, a port is in use, or another server uses the same
                directory.
        """
        self._check_path()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_folder()
        try:
            self._check_ports()
            self._remove_leftovers()
            (self.folder / "tmp").mkdir()
            (self.folder / "logs").mkdir(exist_ok=True)
            self._log_start = self.log.position()
            with (
                (self.folder / "logs" / "stdout.log").open("w") as output,
                (self.folder / "logs" / "stderr.log").open("w") as errors,
            ):
                self._process = subprocess.Popen(
                    self._command(),
                    cwd=self.folder,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if self._forwards_log else errors,
                    start_new_session=True,  # its own process group; Ctrl-C is handled here
                    preexec_fn=partial(_prepare_child, os.getpid()),
                )
        except BaseException:
            self._unlock_folder()
            raise

    def wait_ready(self) -> None:
        """Waits until a worker has loaded the archive and is READY.

        Raises:
            ModelServerError: TorchServe exited, could not load the archive, or took too long.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.is_ready():
                return
            self.raise_if_failed()
            time.sleep(POLL_S)
        raise ModelServerError(
            f"the model was not ready after {READY_TIMEOUT_S} s; see {self.folder / 'logs'}"
        )

    def is_running(self) -> bool:
        """Returns whether the TorchServe process is running."""
        process = self._process  # copied: another thread may set it to None
        return process is not None and process.poll() is None

    def is_ready(self) -> bool:
        """Returns whether the default version has a READY worker."""
        try:
            model = self.management.find(self.manifest["version"])
        except ModelServerError:
            return False
        return model is not None and model.ready > 0

    def load_error(self) -> str | None:
        """Returns why a worker failed to load the archive; None if none has failed."""
        return self.log.load_error(self.manifest["version"], self._log_start)

    def raise_if_failed(self) -> None:
        """Raises an error if the model cannot become ready; call it repeatedly until it is ready.

        Raises:
            ModelServerError: a worker could not load the archive, or TorchServe exited.
        """
        if fault := self.load_error():
            raise ModelServerError(f"the model did not load: {fault}")
        if not self.is_running():
            raise ModelServerError(f"TorchServe exited; see {self.folder / 'logs'}")

    def stop(self) -> None:
        """Kills TorchServe and its workers, in any state.

        A graceful shutdown would also drop requests in progress, and take two to four seconds.
        """
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._remove_leftovers()
        self._unlock_folder()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        require_packages()
        package = Path(str(distribution("torchserve").locate_file("ts")))
        self._write_config()
        return [
            str(find_java()),
            f"-Dmodel_server_home={package.parent}",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={PATHS.logging_config}",
            f"-Dmusiclab.console={'info' if self._forwards_log else 'off'}",
            "-cp",
            str(package / "frontend" / "*"),
            "org.pytorch.serve.ModelServer",
            "--python",
            sys.executable,
            "--ts-config-file",
            str(self.folder / "config.properties"),
            "--model-store",
            str(self.archive.parent),
            "-ncs",
            "--models",  # the first becomes the default
            ",".join(f"{MODEL_NAME}={name}" for name in self._names),
        ]

    def _write_config(self) -> None:
        """Writes the project's config.properties plus the addresses and paths of this server."""
        settings, host = self.settings, self.settings.model_listen_host
        overrides = {
            "inference_address": f"http://{host}:{settings.inference_port}",
            "management_address": f"http://{host}:{settings.management_port}",
            "metrics_address": f"http://{host}:{settings.metrics_port}",
            "grpc_inference_address": host,
            "grpc_inference_port": settings.grpc_inference_port,
            "grpc_management_address": host,
            "grpc_management_port": settings.grpc_management_port,
            "metrics_config": PATHS.metrics_config,
        }
        lines = [f"{name}={value}" for name, value in overrides.items()]
        shared = settings.config_properties.read_text()
        (self.folder / "config.properties").write_text("\n".join([shared, *lines, ""]))

    def _environment(self) -> dict[str, str]:
        temporary = str(self.folder / "tmp")
        defaults = {
            "GOMP_SPINCOUNT": GOMP_SPINCOUNT,
            # Code compiled by one worker is reused by the next.
            "NUMBA_CACHE_DIR": str(self.folder / "compiled"),
        }
        return (
            defaults
            | environment_without_pythonpath()
            | {
                "TEMP": temporary,
                "TMPDIR": temporary,
                "LOG_LOCATION": str(self.folder / "logs"),
                "METRICS_LOCATION": str(self.folder / "logs"),
            }
        )

    def _remove_leftovers(self) -> None:
        """Removes the files that TorchServe leaves at exit: unpacked archives, sockets and keys."""
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        self.key_file.unlink(missing_ok=True)

    def _lock_folder(self) -> None:
        self._lock = (self.folder / "lock").open("w")
        if not lock(self._lock):
            self._unlock_folder()
            raise ModelServerError(
                f"another model server is running in {self.folder}; stop it, or set "
                "MUSICLAB_RUN_DIR to another directory"
            )

    def _unlock_folder(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check_path(self) -> None:
        run_dir = self.settings.run_dir.resolve()
        socket_path = os.fsencode(self.folder / "tmp" / SOCKET_NAME)
        longest = LONGEST_SOCKET_PATH - (len(socket_path) - len(os.fsencode(run_dir)))
        if len(os.fsencode(run_dir)) > longest:
            raise SettingsError(
                f"MUSICLAB_RUN_DIR is {run_dir}; its path may have at most {longest} bytes "
                "because TorchServe creates UNIX sockets in it"
            )

    def _check_ports(self) -> None:
        # A TorchServe whose parent has just been killed needs a moment to exit.
        deadline = time.monotonic() + PORT_TIMEOUT_S
        for name in PORTS:
            port = getattr(self.settings, name)
            while not _is_free(self.settings.model_listen_host, port):
                if time.monotonic() > deadline:
                    raise ModelServerError(
                        f"port {port} is in use; stop the program that uses it, or set "
                        f"MUSICLAB_{name.upper()} to a free port"
                    )
                time.sleep(POLL_S)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _prepare_child(parent: int) -> None:
    """Runs in the child: lowers its CPU priority and ties its lifetime to the parent.

    TorchServe's workers inherit the priority. On Linux, the kernel sends the child SIGTERM when the
    thread that started it ends for any reason.

    Args:
        parent: process ID of the parent.
    """
    os.nice(NICENESS)
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent exited before prctl
            os._exit(1)
