"""When a kernel runs on threads: large enough, more than one thread allowed, and not inside a worker."""

from collections.abc import Iterator
from contextlib import contextmanager

import numba

# A parallel region costs some microseconds on an idle machine and half a millisecond on a busy one.
SMALL = 1 << 18

_started = False


def threads() -> int:
    """Return the number of threads that parallel kernels may use here (numba's own setting)."""
    return int(numba.get_num_threads())


def parallel(work: int) -> bool:
    """Tell whether ``work`` (in normals, about a nanosecond each) is worth a parallel kernel."""
    global _started
    if work < SMALL or threads() == 1:
        return False
    _started = True
    return True


def started() -> bool:
    """Tell whether this process has run a parallel kernel: OpenMP does not survive a fork after that."""
    return _started


@contextmanager
def limited(count: int) -> Iterator[int]:
    """Let the kernels of this thread use ``count`` threads, or as many as there are; yield how many that is."""
    before = threads()
    numba.set_num_threads(min(count, int(numba.config.NUMBA_NUM_THREADS)))
    try:
        yield threads()
    finally:
        numba.set_num_threads(before)
