"""`python -m tests.system.compose`: builds, starts and checks the containers.

Needs root, apt and about 6 GB in /var/lib/containers, where podman keeps the base image and all
layers for the next run; `podman system prune --all` removes them. Grafana is not tested: its image
is not built here.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.support.ports import free_ports
from tests.support.project import PROJECT
from tests.system.compose.checks import STEPS
from tests.system.compose.podman import CommandError, Podman, install_programs, torch_source
from tests.system.compose.stack import SERVICES, Stack

PROJECT_NAME = "musiclab-compose-test"
DOWN = ("down", "--volumes", "--timeout", "5")
SUBNET = "10.251.252.0/24"
TREE = (
    *("docker-compose.yml", ".dockerignore", "deploy", "frontend", "handlers", "orchestrator"),
    *("config.properties", "log4j2.xml", "metrics.yaml", "pyproject.toml", "hatch_build.py"),
    *("requirements", "README.md", "LICENSE"),
)

out = Console(soft_wrap=True, highlight=False)


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("this test installs packages and runs containers: run it as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the context managers clean up
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="musiclab-compose-", dir="/var/tmp") as folder:
            test(Path(folder))
    except (AssertionError, CommandError) as error:
        out.print(str(error), markup=False)
        out.print("[red]failed[/red]")
        return 1
    out.print(f"total: {time.monotonic() - started:.0f} s")
    return 0


def test(folder: Path) -> None:
    """Build, start and check the containers, and always remove them."""
    step("podman is installed", install_programs)
    tree = copy_tree(folder)
    api, page = (int(os.environ.get(name, free)) for name, free in chosen_ports())
    environment = {
        "MUSICLAB_PORT": str(api),
        "MUSICLAB_PAGE_PORT": str(page),
        "MUSICLAB_SUBNET": SUBNET,
        "MUSICLAB_REUSE_RESULTS": "false",
        "TORCH_SOURCE": os.environ.get("TORCH_SOURCE") or torch_source(),
    }
    podman = Podman(folder, tree, environment, PROJECT_NAME)
    stack = Stack(podman, f"http://127.0.0.1:{api}", f"http://127.0.0.1:{page}")
    step("base image exists", podman.make_base_image)
    for service in SERVICES:
        step(f"image of {service} is built", partial(podman.build, service))
    with removed(podman):
        try:
            step("containers are started", partial(podman.compose, "up", "--detach", *SERVICES))
            step("health checks pass", stack.wait_healthy)
            for check in STEPS:
                step(check.__name__.replace("_", " "), partial(check, stack))
        except (AssertionError, CommandError):
            out.print(stack.logs(), markup=False)
            raise


def chosen_ports() -> list[tuple[str, int]]:
    """The variables of both published ports, with free ports as their defaults."""
    return list(zip(("MUSICLAB_PORT", "MUSICLAB_PAGE_PORT"), free_ports(2), strict=True))


def copy_tree(folder: Path) -> Path:
    """A copy of the files that the compose file needs, with an empty checkpoints directory."""
    tree = folder / "musiclab"
    (tree / "checkpoints").mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "dist", "node_modules")
    for name in TREE:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            shutil.copy2(source, tree / name)
    return tree


@contextmanager
def removed(podman: Podman) -> Iterator[None]:
    """Remove containers of an earlier run, and remove those of this run at the end."""
    with suppress(CommandError):
        podman.compose(*DOWN)
    try:
        yield
    finally:
        step("containers are removed", partial(podman.compose, *DOWN))
        for kind in ("container", "volume", "network"):
            lines = (kind, "ls", "--quiet", "--filter", f"name={PROJECT_NAME}")
            left = podman(*lines, *(("--all",) if kind == "container" else ()))
            assert not left, f"left over: {kind} {left}"


def step(name: str, work: Callable[[], object]) -> None:
    """Run a step, and print its duration."""
    started = time.monotonic()
    try:
        work()
    except BaseException:
        out.print(f"[red]{time.monotonic() - started:6.1f} s  {name}[/red]")
        raise
    out.print(f"{time.monotonic() - started:6.1f} s  {name}")


if __name__ == "__main__":
    sys.exit(main())
