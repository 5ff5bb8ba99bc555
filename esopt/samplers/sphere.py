"""Directions alone: rows of fixed length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._kernels import directions
from ..noise import Key, Law, Philox
from ._filled import Filled


@dataclass(frozen=True)
class Sphere(Filled):
    """Independent rows sqrt(d) u with u uniform on the unit sphere: Gaussian rows scaled to one length.

    Mean 0 and covariance I as for Gaussian rows, but the function is smoothed over a sphere; the two agree for
    polynomials of degree 2.

    Notes
    -----
    On a quadratic with gradient a, Hessian H and the mean baseline the score has the variance
    (d - 1) |a|^2 + d sigma^2 (d |H|^2 - (tr H)^2) / (2 (d + 2)) per row, and (d - 1) |a|^2 per antithetic pair, where
    Gaussian rows have (d + 1) |a|^2. In one dimension the rows are +-1.

    References
    ----------
    Flaxman, Kalai, McMahan (2005), Online convex optimization in the bandit setting.

    Examples
    --------
    >>> from esopt import Key, Sphere
    >>> float((Sphere().noise(Key(seed=1), n=1, dim=9).rows() ** 2).sum().round(4))
    9.0
    """

    @property
    def law(self) -> Law:
        return Law.SPHERE

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        return Philox(self, key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column)."""
        directions.sphere(out, row, column, dim, key.generation, key.stream, np.uint64(key.seed))
