"""A Numba cache locator that makes the compilation cache reusable across TorchServe workers."""

import hashlib
from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator


class ContentHashCacheLocator(UserProvidedCacheLocator):
    """Caches in a subdirectory of NUMBA_CACHE_DIR that is named after the hash of the source file.

    Numba names it after the path of the source file by default, but TorchServe unpacks the code to
    a different path on every start.
    """

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """Return the name of the subdirectory."""
        return hashlib.sha256(Path(py_file).read_bytes()).hexdigest()
