"""Runs TorchServe as a child process, apart from everything else on the machine."""

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
# TorchServe talks to its workers through UNIX sockets in its temporary folder, named like this one.
SOCKET_NAME = ".ts.sock.99999"
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
# How often a thread of OpenMP looks for its next work before it sleeps. By default it looks for
# milliseconds, in which another process that computes cannot go on: two workers on the same cores,
# as while a version is swapped, then slow each other down by up to twenty times. With this value a
# lone worker is 0.5 % slower (OMP_WAIT_POLICY=PASSIVE: 50 %), and two make 15 to 30 % more music.
GOMP_SPINCOUNT = "1000"
PR_SET_PDEATHSIG = 1
# Loaded here: a process that was forked while other threads were running must not load libraries.
PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
NICENESS = 10  # where the model takes all CPUs, the API still answers at once

log = structlog.get_logger()


class TorchServe:
    """TorchServe with its archives, in a working and temporary directory of its own.

    TorchServe's Python launcher is not used: it does not hand on signals, and its process file in
    the shared temporary folder allows one server a machine.

    Attributes:
        archive: that of the default version.
        manifest: what is in it.
        folder: its working directory, with `key_file.json`, `logs/` and `tmp/`.
        tokens: those in that file.
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
        """Have these archives served from the next start on, the first as the default.

        Others than the first are left out where TorchServe could not read them.

        Raises:
            ArchiveError: TorchServe could not read the first.
        """
        manifest = verify_archive(archive)
        names = [archive.name]
        for other in additional:
            try:
                verify_archive(other)
            except ArchiveError as error:
                log.error("a version is left out", reason=str(error))
            else:
                names.append(other.name)
        self.archive, self.manifest, self._names = archive.resolve(), manifest, names

    def start(self) -> None:
        """Start TorchServe; returns as soon as the process runs.

        On Linux, TorchServe ends when the thread that calls this ends, however that ends. So call
        it from one that lasts as long as TorchServe is to run.

        Raises:
            ModelPackagesMissingError: the packages of the model are not installed.
            SettingsError: the path of the run folder is too long.
            ModelServerError: no Java, a taken port, or another server in the same folder.
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
                    start_new_session=True,  # a group with its workers; Ctrl-C is ours to handle
                    preexec_fn=partial(_prepare_child, os.getpid()),
                )
        except BaseException:
            self._unlock_folder()
            raise

    def wait_ready(self) -> None:
        """Return when a worker has loaded the archive and is READY.

        Raises:
            ModelServerError: it ended, could not load the archive, or took too long.
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
        """Whether TorchServe's process is there."""
        process = self._process  # which another thread may set to None
        return process is not None and process.poll() is None

    def is_ready(self) -> bool:
        """Whether a worker of the archive's version is READY."""
        try:
            model = self.management.find(self.manifest["version"])
        except ModelServerError:
            return False
        return model is not None and model.ready > 0

    def load_error(self) -> str | None:
        """What a worker that could not load the archive died of; None while none has."""
        return self.log.load_error(self.manifest["version"], self._log_start)

    def raise_if_failed(self) -> None:
        """Find out that the archive will not be served; for the time until it is ready.

        Raises:
            ModelServerError: a worker could not load the archive, or TorchServe ended.
        """
        if fault := self.load_error():
            raise ModelServerError(f"the model did not load: {fault}")
        if not self.is_running():
            raise ModelServerError(f"TorchServe ended; see {self.folder / 'logs'}")

    def stop(self) -> None:
        """End TorchServe and its workers, whatever state they are in.

        Asked to end, it would cut off what it works on just the same, and take two to four seconds.
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
        """The project's config.properties with the addresses and paths of this server."""
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
            # What a worker compiles, the next one need not.
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
        """Remove what a server leaves, killed or not: unpacked archives, sockets and its keys."""
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        self.key_file.unlink(missing_ok=True)

    def _lock_folder(self) -> None:
        self._lock = (self.folder / "lock").open("w")
        if not lock(self._lock):
            self._unlock_folder()
            raise ModelServerError(
                f"another model server works in {self.folder}; stop it, or set MUSICLAB_RUN_DIR "
                "to another folder"
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
                f"MUSICLAB_RUN_DIR is {run_dir}; its path may have at most {longest} bytes, as "
                "TorchServe puts UNIX sockets below it"
            )

    def _check_ports(self) -> None:
        # A TorchServe whose parent was killed a moment ago is still about to end.
        deadline = time.monotonic() + PORT_TIMEOUT_S
        for name in PORTS:
            port = getattr(self.settings, name)
            while not _is_free(self.settings.model_listen_host, port):
                if time.monotonic() > deadline:
                    raise ModelServerError(
                        f"port {port} is taken; stop what uses it, or set "
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
    """In the child: a lower CPU priority than ours, which its workers inherit, and an end with us.

    Linux is asked for SIGTERM when the thread that started it ends, however it ends.

    Args:
        parent: process ID of the process that forked it.
    """
    os.nice(NICENESS)
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before that
            os._exit(1)
