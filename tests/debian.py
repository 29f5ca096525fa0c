"""Files of Debian's packages, without installing them: needs no root, and starts no service."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from orchestrator.settings import PROJECT

CACHE = PROJECT / ".cache"


def fetched(package: str, folder: str, name: str, otherwise: str) -> Path:
    """A folder of a package, downloaded when it is first needed.

    Args:
        package: its name.
        folder: path in the package.
        name: what the folder is called in the cache.
        otherwise: what to do on a machine without apt-get, as a clause.
    """
    target = CACHE / name
    if target.exists():
        return target
    assert shutil.which("apt-get"), (
        f"the tests take {name} from Debian's package {package}, and this machine has no apt-get; "
        f"{otherwise}"
    )
    CACHE.mkdir(exist_ok=True)
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
    return target
