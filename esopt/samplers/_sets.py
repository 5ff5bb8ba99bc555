"""What the scrambled point sets share: their size, their seeds, and the way from the unit cube to normal rows."""

from __future__ import annotations

import numpy as np

from ..noise import Array, Key, child
from ._blocks import Rows, check_count, check_multiple

_EDGE = 2.0**-31
"""Points stay this far inside the unit interval: normals stay below 6.13."""


def check_set(name: str, replicates: int, points: int | None) -> None:
    """Raise unless the numbers are positive integers, and only one of them is asked for.

    Raises
    ------
    TypeError, ValueError  for anything else.
    """
    check_count(name, "replicates", replicates)
    if points is not None:
        check_count(name, "points", points)
        if replicates != 1:
            raise ValueError(
                f"{name}() got replicates={replicates} and points={points}. "
                "Give replicates, and n / replicates are the points, or points, and n may be any multiple of it."
            )


def points_per_set(name: str, n: int, replicates: int, points: int | None) -> int:
    """Return the number of points of one set in a population of ``n``.

    Raises
    ------
    ValueError  if the sets are not of equal size.
    """
    check_multiple(name, n, points or replicates)
    return points or n // replicates


def scramble_seed(key: Key, block: int) -> int:
    """Return the 64-bit seed of the scramble of one set."""
    return child(child(child(key.seed, key.generation), key.stream), block)


def normal(uniform: Array) -> Rows:
    """Return the normal quantiles of points in [0, 1)."""
    from scipy.special import ndtri

    inside = np.clip(uniform, _EDGE, 1.0 - _EDGE)
    return np.ascontiguousarray(ndtri(inside), np.float32)
