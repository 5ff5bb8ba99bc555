"""Blocks that are made as a whole and read row by row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


class _Last(threading.local):
    """What this thread made last; a memo of a pure function, so that nobody can tell whether it is there."""

    name: Hashable = None
    rows: Rows | None = None


_last = _Last()


def remember(name: Hashable, make: Callable[[], Rows]) -> Rows:
    """Return ``make()``, or what it returned if ``name`` was also the last name of this thread."""
    rows = _last.rows
    if rows is None or _last.name != name:
        _last.rows = None
        rows = make()
        rows.flags.writeable = False
        _last.name, _last.rows = name, rows
    return rows


def copy_blocks(out: Rows, row: int, column: int, block: int, make: Callable[[int], Rows]) -> None:
    """Write rows ``row`` ... and columns ``column`` ... to ``out`` from the blocks (block, d) that ``make`` returns."""
    stop = row + len(out)
    for b in range(row // block, -(-stop // block)):
        first, last = max(row, b * block), min(stop, (b + 1) * block)
        rows = make(b)[first - b * block : last - b * block]
        out[first - row : last - row] = rows[:, column : column + out.shape[1]]


def check_count(name: str, what: str, value: object) -> None:
    """Raise unless ``value`` is a positive integer.

    Raises
    ------
    TypeError, ValueError  for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}() needs an integer for {what}, got {value!r}. Pass for example {what}=8.")
    if value < 1:
        raise ValueError(f"{name}() needs at least 1 for {what}, got {value}. Pass for example {what}=8.")


def check_multiple(name: str, n: int, block: int) -> None:
    """Raise ValueError unless ``n`` is a multiple of ``block``."""
    if n % block:
        raise ValueError(f"{name} noise comes in blocks of {block} rows, got n={n}. Use a multiple of {block}.")


def largest_divisor(n: int, most: int) -> int:
    """Return the largest divisor of ``n`` that is at most ``most``."""
    return next(k for k in range(min(n, most), 0, -1) if n % k == 0)
