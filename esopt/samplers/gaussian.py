"""Independent standard normal rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._kernels import gaussian
from ..noise import Key, Philox
from ._filled import Filled


@dataclass(frozen=True)
class Gaussian(Filled):
    """Independent rows eps_i ~ N(0, I).

    Examples
    --------
    >>> from esopt import Gaussian, Key
    >>> Gaussian().noise(Key(seed=1), n=4, dim=3).rows().shape
    (4, 3)
    """

    @property
    def separable(self) -> bool:
        return True

    @property
    def fused(self) -> bool:
        return True

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        return Philox(self, key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column)."""
        gaussian.fill(out, row, column, key.generation, key.stream, np.uint64(key.seed))
