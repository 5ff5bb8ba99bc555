"""One coordinate at a time: finite differences as a sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._kernels import gaussian
from ..noise import Key, Law, Philox
from ._blocks import Rows, check_count, check_multiple, copy_blocks, largest_divisor, remember
from ._filled import Filled


@dataclass(frozen=True)
class Coordinates(Filled):
    """Blocks of k rows +-sqrt(d) e_i with k different coordinates i, chosen at random, and random signs.

    ``Antithetic(Coordinates())`` with n = 2d are central differences with step sigma sqrt(d): the gradient of f
    itself up to O(sigma^2), without error on a quadratic. With fewer rows every generation differentiates along a new
    random choice of coordinates.

    Parameters
    ----------
    k : rows per block; None for the largest divisor of n that is at most d. Beyond d rows a block starts a new set.

    Notes
    -----
    Antithetic on a quadratic the variance per block is (d / k - 1) |grad|^2, as for any k orthogonal directions of one
    length; unlike theirs, the error depends on how the gradient is spread over the coordinates. A block of all d
    coordinates has no standard error, and a baseline that learns from other blocks has nothing to learn from.

    References
    ----------
    Conn, Scheinberg, Vicente (2009), Introduction to derivative-free optimization, section 2.

    Examples
    --------
    >>> from esopt import Antithetic, Coordinates, Key
    >>> rows = Antithetic(Coordinates()).noise(Key(seed=1), n=8, dim=4).rows()
    >>> abs(rows).sum(axis=0).astype(int).tolist(), abs(rows).sum(axis=1).astype(int).tolist()
    ([4, 4, 4, 4], [2, 2, 2, 2, 2, 2, 2, 2])
    """

    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None:
            check_count("Coordinates", "k", self.k)

    @property
    def block(self) -> int:
        return self.k or 1

    @property
    def law(self) -> Law:
        return Law.COORDINATES

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        check_multiple("Coordinates", n, self.block)
        return Philox(self if self.k else replace(self, k=largest_divisor(n, dim)), key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column); the blocks of k=None are those of n = d."""
        k = self.k or dim

        def make(block: int) -> Rows:
            return remember((Coordinates, key, k, dim, block), lambda: _block(key, k, dim, block))

        copy_blocks(out, row, column, k, make)


def _block(key: Key, k: int, dim: int, block: int) -> Rows:
    """Return ``k`` rows (k, d): normals say the order of the coordinates by size, and the signs by sign."""
    sets = -(-k // dim)
    normals = np.empty((sets, dim), np.float32)
    gaussian.fill(normals, block * sets, 0, key.generation, key.stream, np.uint64(key.seed))
    order = np.argsort(np.abs(normals), axis=1, kind="stable").ravel()[:k]
    signs = np.where(normals[np.arange(k) // dim, order] < 0.0, -1.0, 1.0)
    out = np.zeros((k, dim), np.float32)
    out[np.arange(k), order] = signs * np.sqrt(dim)
    return out
