"""Matrices of low rank, for parameters that are matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._kernels import lowrank
from ..noise import Key, Law, Philox
from ._blocks import check_count
from ._filled import Filled


@dataclass(frozen=True)
class LowRank(Filled):
    """Rows that are matrices E = A B^T / sqrt(r), flattened row by row, from Gaussian A (m, r) and B (n, r).

    Entries have mean 0 and variance 1 and are uncorrelated, but not independent: r (m + n) numbers make m n, and a
    network can be evaluated with them without ever building E.

    Parameters
    ----------
    shape : (m, n) of the one matrix; give this or ``shapes``.
    rank : r, of every matrix.
    shapes : shapes of several parts in their order, matrices (m, n) and vectors (k,); vectors are plain Gaussian.

    Notes
    -----
    The function is smoothed over this law, which agrees with the Gaussian one for polynomials of degree 2. An
    antithetic pair has the variance |G|^2 (m n + 1 + 2 (m + n + 1) / r) on a quadratic with gradient G: rank 1 costs a
    relative 2 (m + n + 1) / (m n + 1) against full Gaussian noise, and a larger rank ever less.

    The factors are columns of the row's Gaussian noise: for each part in turn A as (r, m), then B as (r, n).

    References
    ----------
    Sarkar et al. (2025), Evolution strategies at the hyperscale (EGGROLL).

    Examples
    --------
    >>> import numpy as np
    >>> from esopt import Key, LowRank
    >>> row = LowRank((3, 4)).noise(Key(seed=1), n=1, dim=12).rows()
    >>> int(np.linalg.matrix_rank(row.reshape(3, 4), tol=1e-5))
    1
    >>> LowRank(rank=2, shapes=((8, 5), (8,))).noise(Key(seed=1), n=1, dim=48).rows().shape
    (1, 48)
    """

    shape: tuple[int, int] | None = None
    rank: int = 1
    shapes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        check_count("LowRank", "rank", self.rank)
        if (self.shape is None) == (not self.shapes):
            raise ValueError(
                f"LowRank() got shape={self.shape} and shapes={self.shapes}. Give one of them: shape=(m, n) for a "
                "matrix, or shapes=((m, n), (k,), ...)."
            )
        for part in self._parts:
            sizes = isinstance(part, tuple) and all(type(size) is int and size >= 1 for size in part)
            if not (sizes and len(part) in (1, 2)) or (self.shape is not None and len(part) == 1):
                raise ValueError(
                    f"LowRank() got the part {part!r}. Give tuples of positive integers: (m, n) for a matrix, and in "
                    "shapes= also (k,) for a vector."
                )

    @property
    def _parts(self) -> tuple[tuple[int, ...], ...]:
        return self.shapes if self.shape is None else (self.shape,)

    @property
    def law(self) -> Law:
        return Law.LOW_RANK

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        sizes = [math.prod(part) for part in self._parts]
        if sum(sizes) != dim:
            raise ValueError(
                f"LowRank() has parts of {sizes} entries, {sum(sizes)} in all, for dim={dim}. "
                "Give the shapes of all parameters, in their order."
            )
        return Philox(self, key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column)."""
        parts = np.array([(*part, 0)[:2] for part in self._parts], np.int64)
        lowrank.fill(out, row, column, parts, self.rank, key.generation, key.stream, np.uint64(key.seed))
