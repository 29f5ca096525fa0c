"""podman instead of a Docker engine, configured to run on any machine with root and apt."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.project import PROJECT

PACKAGES = (
    *("podman", "buildah", "runc", "netavark", "aardvark-dns", "iptables"),
    *("catatonit", "debootstrap"),
)
BASE_IMAGE = "localhost/debian:bookworm-slim"
TORCH = "torch==2.13.0+cpu"
CERTIFICATES = "/etc/pip-certificates.pem"
NPM_CERTIFICATES = "/etc/npm-certificates.pem"

# The default limits of podman are higher than some machines allow.
CONFIG = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class CommandError(Exception):
    """A command failed; the message has the command and the end of its output."""


def run(
    *command: str | Path, cwd: Path = PROJECT, environment: dict[str, str] | None = None
) -> str:
    """Run a command and return its standard output.

    Raises:
        CommandError: the command failed.
    """
    words = [str(word) for word in command]
    ended = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if ended.returncode != 0:
        output = (ended.stdout + ended.stderr)[-4000:]
        raise CommandError(f"`{' '.join(words)}` exited with {ended.returncode}:\n{output}")
    return ended.stdout


def install_programs() -> None:
    """Install podman and its dependencies if they are missing."""
    missing = [name for name in ("podman", "runc", "catatonit", "debootstrap") if not _has(name)]
    if missing:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        options = ("-y", "-qq", "-o", "DPkg::Lock::Timeout=600", "--no-install-recommends")
        run("apt-get", "update", "-qq")
        run("apt-get", "install", *options, *PACKAGES, environment=quiet)


def _has(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/lib/podman") is not None


@dataclass(frozen=True)
class Podman:
    """podman and podman-compose for one project of the compose file.

    Attributes:
        folder: directory for their configuration.
        tree: directory of the compose file.
        environment: variables that the compose file reads.
        project: name prefix of all containers, networks and volumes.
    """

    folder: Path
    tree: Path
    environment: dict[str, str]
    project: str

    def __call__(self, *arguments: str | Path) -> str:
        """Run `podman` and return its standard output."""
        return run("podman", *arguments, environment=self._environment())

    def compose(self, *arguments: str) -> str:
        """Run `podman-compose` and return its standard output."""
        program = Path(sys.executable).with_name("podman-compose")
        options = ("--project-name", self.project, "--in-pod", "false")
        return run(program, *options, *arguments, cwd=self.tree, environment=self._environment())

    def build(self, *services: str) -> None:
        """Build images with the pip, npm and apt configuration of this machine, as mounts."""
        mounts = " ".join(f"--volume={mount}" for mount in self._client_settings())
        self.compose(f"--podman-build-args={mounts}", "build", *services)

    def execute(self, service: str, *command: str) -> str:
        """Run a command in a service's container and return its standard output."""
        return self("exec", self.name(service), *command)

    def name(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.project}_{service}_1"

    def logs(self, service: str) -> str:
        """The last log lines of a service's container, from stdout and stderr."""
        script = 'podman logs --tail 30 "$0" 2>&1'
        return run("sh", "-c", script, self.name(service), environment=self._environment())

    def inspect(self, service: str) -> dict[str, Any]:
        """The output of `podman inspect` for a service's container."""
        found: list[dict[str, Any]] = json.loads(self("inspect", self.name(service)))
        return found[0]

    def make_base_image(self) -> None:
        """Build debian:bookworm-slim from Debian packages, unless podman has this image."""
        if self("images", "--quiet", BASE_IMAGE):
            return
        with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
            root, archive = Path(scratch, "root"), Path(scratch, "root.tar")
            options = ("--variant=minbase", "--include=ca-certificates")
            run("debootstrap", *options, "bookworm", root)
            run("tar", "-C", root, "-cf", archive, ".")
            self("import", archive, BASE_IMAGE)

    def _environment(self) -> dict[str, str]:
        config = self.folder / "containers.conf"
        config.write_text(CONFIG)
        # Without systemd, podman does not run the health checks; the test runs them.
        own = {"CONTAINERS_CONF": str(config), "DISABLE_HC_SYSTEMD": "true"}
        return own | self.environment

    def _client_settings(self) -> list[str]:
        """Mounts of the pip, apt and npm configuration, and of the files it refers to."""
        options = pip_options()
        mounts = ["/etc/apt/apt.conf.d:/etc/apt/apt.conf.d:ro"]
        if certificates := options.get("cert"):
            mounts.append(f"{certificates}:{CERTIFICATES}:ro")
            options["cert"] = CERTIFICATES
        npm = npm_options()
        if certificates := npm.get("cafile"):
            mounts.append(f"{certificates}:{NPM_CERTIFICATES}:ro")
            npm["cafile"] = NPM_CERTIFICATES
        npmrc = self.folder / "npmrc"
        npmrc.write_text("".join(f"{name}={value}\n" for name, value in npm.items()))
        for name in ("constraint", "find-links", "index-url", "extra-index-url"):
            for location in options.get(name, "").split():
                if location.startswith(("/", "file:")):
                    # A local index refers to files in sibling directories.
                    path = Path(urlsplit(location).path)
                    mounted = path.parent if name.endswith("index-url") else path
                    mounts.append(f"{mounted}:{mounted}:ro")
        parser = configparser.ConfigParser(interpolation=None)
        parser["global"] = options
        config = self.folder / "pip.conf"
        with config.open("w") as file:
            parser.write(file)
        return [*mounts, f"{config}:/etc/pip.conf:ro", f"{npmrc}:/root/.npmrc:ro"]


def pip_options() -> dict[str, str]:
    """The pip configuration of this machine, from files and environment variables."""
    options = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        options[name.rpartition(".")[2]] = value.strip("'\"").replace("\\n", " ")
    return options


def npm_options() -> dict[str, str]:
    """The npm configuration of this machine; empty if npm is not installed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    npm = shutil.which("npm", path=path)
    if npm is None:
        return {}
    names = ("registry", "cafile")
    values = {name: run(npm, "config", "get", name, environment={"PATH": path}) for name in names}
    return {name: value.strip() for name, value in values.items() if value.strip() != "null"}


def torch_source() -> str:
    """Arguments with which pip installs torch without CUDA; empty if it finds no such package."""
    try:
        pip = (sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps")
        run(*pip, "--ignore-installed", TORCH)
    except CommandError:
        return ""
    return TORCH
