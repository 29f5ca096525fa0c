"""Where a worker finds what Numba compiled for the one before it."""

import hashlib
from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator


class ContentHashCacheLocator(UserProvidedCacheLocator):
    """In a folder of NUMBA_CACHE_DIR that is named after the content of the source.

    Numba would name it after its path, but TorchServe unpacks the code of each start elsewhere.
    """

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """The name of that folder."""
        return hashlib.sha256(Path(py_file).read_bytes()).hexdigest()
