"""Independent signs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._kernels import signs
from ..noise import Key, Law, Philox
from ._filled import Filled


@dataclass(frozen=True)
class Rademacher(Filled):
    """Independent entries +1 and -1, one bit each (simultaneous perturbation).

    Mean 0 and covariance I as for Gaussian rows, but the function is smoothed over the corners of a cube; the two agree
    for polynomials of degree 2.

    Notes
    -----
    On a quadratic with gradient a, Hessian H and the mean baseline the score has the variance
    (d - 1) |a|^2 + d sigma^2 (|H|^2 - sum_i H_ii^2) / 2 per row: a separable f costs nothing for its curvature. An
    antithetic pair has (d - 1) |a|^2, where Gaussian rows have (d + 1) |a|^2.

    Column j of row i is bit (j % 2048) // 64 of output word (j % 64) // 16 of the Philox counter
    (16 (j // 2048) + j % 16, i, generation, stream); a set bit is -1.

    References
    ----------
    Spall (1992), Multivariate stochastic approximation using a simultaneous perturbation gradient approximation.

    Examples
    --------
    >>> import numpy as np
    >>> from esopt import Key, Rademacher
    >>> np.unique(Rademacher().noise(Key(seed=1), n=2, dim=50).rows())
    array([-1.,  1.], dtype=float32)
    """

    @property
    def separable(self) -> bool:
        return True

    @property
    def law(self) -> Law:
        return Law.RADEMACHER

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        return Philox(self, key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column)."""
        signs.fill(out, row, column, key.generation, key.stream, np.uint64(key.seed))
