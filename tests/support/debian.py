"""Files from Debian packages, extracted without installing: needs no root, starts no service."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.project import PROJECT

CACHE = PROJECT / ".cache"


def fetch_directory(package: str, folder: str, name: str, alternative: str) -> Path:
    """A directory from a package, downloaded on first use.

    Args:
        package: name of the package.
        folder: path of the directory in the package.
        name: name of the directory in the cache.
        alternative: advice for a machine without apt-get, as an imperative clause.
    """
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{package}.lock").open("w") as lock:  # several test processes may run at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = CACHE / name
        if not target.exists():
            _fetch(package, folder, target, alternative)
        return target


def _fetch(package: str, folder: str, target: Path, alternative: str) -> None:
    assert shutil.which("apt-get"), (
        f"the tests take {target.name} from the Debian package {package}, and this machine has no "
        f"apt-get; {alternative}"
    )
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        # Separate package lists, so that the system needs no earlier `apt-get update`.
        for each in ("lists/partial", "archives/partial"):
            Path(scratch, each).mkdir(parents=True)
        apt = [
            "apt-get",
            "--quiet=2",
            *("-o", f"Dir::State::Lists={scratch}/lists"),
            *("-o", f"Dir::Cache={scratch}"),
            *("-o", "APT::Sandbox::User="),
            *("-o", "Acquire::Languages=none"),
        ]
        subprocess.run([*apt, "update"], check=True, cwd=scratch)
        subprocess.run([*apt, "download", package], check=True, cwd=scratch)
        (archive,) = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, f"{scratch}/content"], check=True)
        Path(scratch, "content", folder).rename(target)
