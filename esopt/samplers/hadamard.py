"""Orthogonal rows of signs in O(d) memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._kernels import signs
from ..noise import Key, Law, Philox
from ._blocks import check_count, check_multiple, largest_divisor
from ._filled import Filled


@dataclass(frozen=True)
class Hadamard(Filled):
    """Blocks of k different rows of H D: a Hadamard matrix whose columns have random signs.

    H is Sylvester's matrix of order P, the smallest power of two >= d, and H_ij = (-1)^popcount(i & j) is never stored.
    The k rows of a block are a random choice of the P, in which all pairs of rows are equally likely; D is new in every
    block. Each row by itself consists of independent signs.

    Parameters
    ----------
    k : rows per block; None for the largest divisor of n that is at most P. Beyond P rows a block starts a new set.

    Notes
    -----
    Rows of a block are orthogonal where d is a power of two. Otherwise only the first d of P columns are used, and the
    product of two rows is zero on average but not exactly; a whole block, k = P, still satisfies
    sum_i eps_i eps_i^T = P I exactly.

    On a linear f, or antithetic on a quadratic, the variance per block is
    (d / k - 1 + (1 - 1 / k) (P - d) / (P - 1)) |grad J|^2 for d >= 2: d / k - 1 where d is a power of two, and 0 for
    k = P, which makes the estimate exact. A single block has no standard error, and a baseline that learns from other
    blocks has nothing to learn from: without :class:`esopt.Antithetic`, choose k so that there are at least two.

    References
    ----------
    Choromanski et al. (2018), Structured evolution with compact architectures for scalable policy optimization,
    section 3.2.

    Examples
    --------
    >>> from esopt import Hadamard, Key
    >>> rows = Hadamard().noise(Key(seed=1), n=4, dim=4).rows()
    >>> (rows @ rows.T).astype(int)
    array([[4, 0, 0, 0],
           [0, 4, 0, 0],
           [0, 0, 4, 0],
           [0, 0, 0, 4]])
    """

    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None:
            check_count("Hadamard", "k", self.k)

    @property
    def block(self) -> int:
        return self.k or 1

    @property
    def separable(self) -> bool:
        return True

    @property
    def law(self) -> Law:
        return Law.RADEMACHER

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        check_multiple("Hadamard", n, self.block)
        return Philox(self if self.k else replace(self, k=largest_divisor(n, 1 << _bits(dim))), key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column); the blocks of k=None are those of n = P."""
        bits = _bits(dim)
        polynomial = (1 << bits) | signs.POLYNOMIALS[bits - 1] if bits else 0
        address = key.generation, key.stream, np.uint64(key.seed)
        signs.fill_hadamard(out, row, column, self.k or 1 << bits, bits, polynomial, *address)


def _bits(dim: int) -> int:
    """Return log2 of the order P, the smallest power of two that is at least ``dim``."""
    return (dim - 1).bit_length()
