"""Files of Debian's packages, without installing them: needs no root, and starts no service."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.project import PROJECT

CACHE = PROJECT / ".cache"


def fetched(package: str, folder: str, name: str, otherwise: str) -> Path:
    """A folder of a package, downloaded when it is first needed.

    Args:
        package: its name.
        folder: path in the package.
        name: what the folder is called in the cache.
        otherwise: what to do on a machine without apt-get, as a clause.
    """
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{package}.lock").open("w") as lock:  # several may run the tests
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = CACHE / name
        if not target.exists():
            _fetch(package, folder, target, otherwise)
        return target


def _fetch(package: str, folder: str, target: Path, otherwise: str) -> None:
    assert shutil.which("apt-get"), (
        f"the tests take {target.name} from Debian's package {package}, and this machine has no "
        f"apt-get; {otherwise}"
    )
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        # Package lists of our own, so that no earlier `apt-get update` is needed either.
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
