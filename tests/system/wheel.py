"""`python -m tests.system.wheel`: installs the wheel from dist/ into an empty environment.

It then runs a job. All commands run in an empty directory as an unprivileged user (`nobody`, if run
by root). Only the ports are configured, so that data is stored in the default locations of an
installed MusicLab. pip resolves the dependencies of the wheel as for any user, which requires a
package index.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from orchestrator.archives.model_packages import WHEEL_INSTRUCTIONS
from orchestrator.client import MusicLabClient
from tests.support.ports import free_ports
from tests.support.project import PROJECT
from tests.support.settings import PORTS
from tests.support.signals import RATE, SEGMENT, decoded, encoded, noise
from tests.system.compose.podman import TORCH, torch_source

USER = "nobody"
ENCODEC = "encodec==0.1.1"
READY_WITHIN_S = 300
ENDED_WITHIN_S = 60


@dataclass(frozen=True)
class Installation:
    """A virtual environment and an empty working directory, both owned by the user.

    Attributes:
        root: parent directory of everything below.
        python: interpreter of the virtual environment.
        work: working directory of commands.
        home: home directory of the user.
        variables: environment variables of all commands.
    """

    root: Path
    python: Path
    work: Path
    home: Path
    variables: dict[str, str]

    def run(self, *command: str | Path) -> str:
        """Run a command, which must succeed, and return its standard output."""
        ended = subprocess.run(
            list(map(str, command)), **self._as_user(), capture_output=True, text=True
        )
        output = f"{ended.stdout[-2000:]}{ended.stderr[-4000:]}"
        assert ended.returncode == 0, f"{command} exited with {ended.returncode}:\n{output}"
        return str(ended.stdout)

    def pip(self, *arguments: str | Path) -> None:
        self.run(self.python, "-m", "pip", "install", "--quiet", *arguments)

    def musiclab(self, *arguments: str) -> str:
        """Run a `musiclab` command and return its standard output."""
        return self.run(self.python.with_name("musiclab"), *arguments)

    @contextmanager
    def serving(self, command: str) -> Iterator[str]:
        """Run a serving command until the block ends; yields its address once it prints Ready."""
        log = self.root / f"{command}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(self.python.with_name("musiclab")), command],
                **self._as_user(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while "Ready." not in log.read_text():
                assert process.poll() is None, f"{command} exited:\n{log.read_text()[-4000:]}"
                assert time.monotonic() < deadline, f"not ready:\n{log.read_text()[-4000:]}"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{self.variables['MUSICLAB_API_PORT']}"
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(ENDED_WITHIN_S)
        assert code == 0, f"{command} exited with {code}:\n{log.read_text()[-4000:]}"

    def _as_user(self) -> dict[str, Any]:
        drop = {"user": USER, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        return {"cwd": self.work, "env": self.variables, "stdin": subprocess.DEVNULL, **drop}


@contextmanager
def installation() -> Iterator[Installation]:
    """A temporary installation directory, with nothing installed yet."""
    with tempfile.TemporaryDirectory(prefix="musiclab-wheel-", dir="/var/tmp") as folder:
        root = Path(folder)
        work, home = root / "work", root / "home"
        for each in (root, work, home):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
            if os.geteuid() == 0:
                shutil.chown(each, USER)
        kept = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("PIP_", "SSL_")) or name in ("LANG", "http_proxy", "https_proxy")
        }
        ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        variables = {
            **kept,
            **{f"MUSICLAB_{name.upper()}": port for name, port in ports.items()},
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
        }
        user = Installation(root, root / "venv" / "bin" / "python", work, home, variables)
        yield user


def python_of_user() -> str:
    """A Python that the user may run: the current one, unless its directory is not accessible."""
    base = Path(sys.base_prefix, "bin", "python3")
    is_open = all(folder.stat().st_mode & 0o005 == 0o005 for folder in base.resolve().parents)
    return str(base) if is_open else "/usr/bin/python3"


def built_wheel(folder: Path) -> Path:
    """Copy the wheel from dist/ into a directory."""
    (wheel,) = (PROJECT / "dist").glob("musiclab-*.whl")
    return Path(shutil.copy(wheel, folder))


def orchestrator_alone_serves_the_page(user: Installation) -> None:
    wheel = built_wheel(user.root)
    user.run(python_of_user(), "-m", "venv", user.root / "venv")
    user.pip(wheel)
    assert "Usage" in user.musiclab("--help")
    found = user.musiclab("doctor")
    assert WHEEL_INSTRUCTIONS in found, f"doctor does not print how to install the model:\n{found}"
    with user.serving("orchestrator") as address:
        health = requests.get(f"{address}/health", timeout=10)
        assert health.json()["model_loaded"] is False, health.text
        page = requests.get(f"{address}/", headers={"Accept": "text/html"}, timeout=10)
        assert "<title>MusicLab</title>" in page.text, page.text[:500]
    assert list(user.work.iterdir()) == [], "something was written to the working directory"


def jobs_complete_with_the_model_extra(user: Installation) -> None:
    wheel = built_wheel(user.root)
    user.pip(*(os.environ.get("TORCH_SOURCE") or torch_source() or TORCH).split())
    user.pip(f"{wheel}[model]")
    user.pip("--no-deps", ENCODEC)
    found = user.musiclab("doctor")
    assert "missing" not in found, found
    with user.serving("up") as address:
        client = MusicLabClient(address)
        tracks = []
        for number in (1, 2):
            track = user.root / f"{number}.flac"
            track.write_bytes(encoded(noise(17 * RATE, number), "FLAC"))
            tracks.append(track)
        job = client.submit(*tracks)
        client.wait(job)
        assert len(decoded(client.download(job))) == SEGMENT
    data, state = (user.home / ".local" / name / "musiclab" for name in ("share", "state"))
    assert list((data / "model_store").glob("musiclab-*.mar")), "no archive in the data directory"
    assert (data / "checkpoints" / "starter").is_dir()
    assert (state / "run" / "jobs.sqlite").is_file()
    assert (state / "cache" / f"music_{job}").is_dir()
    assert list(user.work.iterdir()) == [], "something was written to the working directory"


STEPS: tuple[Callable[[Installation], None], ...] = (
    orchestrator_alone_serves_the_page,
    jobs_complete_with_the_model_extra,
)


def main() -> None:
    with installation() as user:
        for step in STEPS:
            started = time.monotonic()
            step(user)
            print(f"{time.monotonic() - started:6.1f} s  {step.__name__.replace('_', ' ')}")


if __name__ == "__main__":
    main()
