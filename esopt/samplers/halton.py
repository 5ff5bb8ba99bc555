"""Scrambled Halton points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..noise import Key, Philox
from ._blocks import Rows, copy_blocks, remember
from ._filled import Filled
from ._sets import check_set, normal, points_per_set, scramble_seed


@dataclass(frozen=True)
class Halton(Filled):
    """Normal quantiles of scrambled Halton points, with a fresh scramble in every generation.

    Each row is N(0, I) by itself; together the rows cover the space more evenly than independent ones. For any n, where
    :class:`esopt.Sobol` wants powers of two; less even than Sobol in more than about ten dimensions.

    Parameters
    ----------
    replicates : independent scrambles, of n / replicates points each. A scramble is one block: with a single one
        there are no standard errors.
    points : points of each scramble, instead of ``replicates``; n may then be any multiple of it.

    Notes
    -----
    Column j is in the base of the j-th prime number, with random permutations of the digits. Their seed is a function
    of seed, generation, stream and number of the set; the bits depend on the versions of scipy and numpy.

    References
    ----------
    Owen (2017), A randomized Halton algorithm in R.

    Examples
    --------
    >>> from esopt import Halton, Key
    >>> rows = Halton().noise(Key(seed=1), n=100, dim=2).rows()
    >>> int((rows[:, 0] < 0).sum())
    50
    """

    replicates: int = 1
    points: int | None = None

    def __post_init__(self) -> None:
        check_set("Halton", self.replicates, self.points)

    @property
    def block(self) -> int:
        return self.points or self.replicates

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        points = points_per_set("Halton", n, self.replicates, self.points)
        return Philox(replace(self, replicates=1, points=points), key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column); ``points`` must be known."""
        if self.points is None:
            raise ValueError("fill() needs the number of points. Use noise(key, n, dim), or Halton(points=...).")
        points = self.points

        def make(block: int) -> Rows:
            return remember((Halton, key, points, dim, block), lambda: _points(scramble_seed(key, block), points, dim))

        copy_blocks(out, row, column, points, make)


def _points(seed: int, count: int, dim: int) -> Rows:
    from scipy.stats import qmc

    return normal(qmc.Halton(dim, scramble=True, rng=seed).random(count))
