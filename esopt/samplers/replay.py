"""The same explicit rows in every generation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..noise import Array, Given, Key
from ._filled import Filled


@dataclass(frozen=True, eq=False)
class Replay(Filled):
    """Explicit noise rows (n, d), the same in every generation: exact tests, quadrature nodes, designs of one's own.

    ``block`` and ``mirrored`` say how the rows depend on each other, as in :class:`esopt.Given`.
    """

    rows: Array
    block: int = 1
    mirrored: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", Given(self.rows, self.block, self.mirrored).given)

    @property
    def separable(self) -> bool:
        return True

    def noise(self, key: Key, n: int, dim: int) -> Given:
        """Return the rows; ``n`` and ``dim`` must be theirs."""
        if (n, dim) != self.rows.shape:
            raise ValueError(
                f"Replay() has rows of shape {self.rows.shape}, got n={n} and dim={dim}. Set n to {len(self.rows)}."
            )
        return Given(self.rows, self.block, self.mirrored, key)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column)."""
        out[...] = self.rows[row : row + out.shape[0], column : column + out.shape[1]]
