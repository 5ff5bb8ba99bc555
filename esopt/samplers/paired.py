"""Antithetic pairs, in orthogonal directions where that pays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..noise import Key, Law, Philox
from ._blocks import check_multiple, largest_divisor
from .antithetic import Antithetic
from .orthogonal import Orthogonal

_GAIN = 0.2
_NUMBERS = 1 << 20


@dataclass(frozen=True)
class Paired:
    """``Antithetic(Orthogonal(k))`` in two blocks or more, if that is affordable and pays, else ``Antithetic()``.

    k is the largest divisor of n / 2 that is at most n / 4 and d. On a quadratic the variance of the mean's gradient is
    that of independent pairs times 1 - (k - 1) / (d + 1); orthogonal pairs are taken where that saves a fifth, up to
    k d = 2^20 numbers. The default of
    :class:`esopt.GradientES` with :class:`esopt.Score`.

    Notes
    -----
    ``Antithetic(Orthogonal())``, a single block up to n = 2 d, is more precise yet, and most so at n = 2 d. But a
    single block has no error bars, because directions that complete each other are no repetitions of each other.

    Examples
    --------
    >>> from esopt import Key, Paired
    >>> Paired().noise(Key(seed=1), n=40, dim=20).block, Paired().noise(Key(seed=1), n=40, dim=1000).block
    (20, 2)
    """

    @property
    def block(self) -> int:
        return 2

    @property
    def mirrored(self) -> bool:
        return True

    @property
    def separable(self) -> bool:
        return False

    @property
    def fused(self) -> bool:
        return False

    @property
    def law(self) -> Law:
        return Law.GAUSSIAN

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        check_multiple("Paired", n, 2)
        k = largest_divisor(n // 2, max(1, min(n // 4, dim)))
        pays = k - 1 >= _GAIN * (dim + 1) and k * dim <= _NUMBERS
        return (Antithetic(Orthogonal(k)) if pays else Antithetic()).noise(key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column); without an n, that of Antithetic()."""
        Antithetic().fill(key, row, column, dim, out)
