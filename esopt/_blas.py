"""Linear algebra whose bits do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np

Method = TypeVar("Method", bound=Callable[..., Any])

# A limit costs 20 to 30 microseconds; below this size OpenBLAS works in one thread anyway, in the same bits.
_SMALL = 64
_lock = Lock()
_inside: list[Any] = []
"""The limit, once for every thread of Python inside it: the setting is that of the process, and the last one resets."""


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS work in one thread of this process until the last of those who asked for it has left."""
    with _lock:
        _inside.append(_inside[-1] if _inside else _controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _inside.pop()
            if not _inside:
                limit.restore_original_limits()


def serial(method: Method) -> Method:
    """Return an ``init`` or a ``tell`` in which BLAS works in one thread: equal bits on machines with other numbers."""

    @wraps(method)
    def called(self: Any, first: Any, *others: Any) -> Any:
        mean = first if isinstance(first, np.ndarray) else first.mean
        if mean.size < _SMALL:
            return method(self, first, *others)
        with one_thread():
            return method(self, first, *others)

    return cast(Method, called)
