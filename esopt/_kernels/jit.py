"""numba.njit with a cache that notices a change of any file in this folder.

numba looks only at the file of a kernel itself to decide whether its cached code is fresh, but kernels inline functions
of other files here: after an upgrade, noise of the old version would come out of the cache.
"""

import hashlib
from pathlib import Path

from numba import njit


def _digest():
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


_DIGEST = _digest()


def kernel(**options):
    """Return the decorator of a compiled, cached kernel that runs without the GIL; options are those of numba.njit."""

    def compiled(function):
        dispatcher = njit(cache=True, nogil=True, **options)(function)
        index = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if hasattr(index, "_source_stamp"):
            index._source_stamp = _DIGEST
            return dispatcher
        # numba has changed inside, or nothing is cached or compiled at all: rather slow than stale.
        return njit(nogil=True, **options)(function)

    return compiled
