"""Mirrored rows: every direction is tried on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .._parts import check_instance
from ..noise import Key, Philox
from ..protocols import Law, Sampler
from .gaussian import Gaussian


@dataclass(frozen=True)
class Antithetic:
    """Row 2k is row k of ``base``, row 2k + 1 its negative, exactly; ``n`` must be a multiple of the block.

    Removes every even part of f from the estimate of the mean's gradient. On a linear f it costs twice the variance
    per evaluation of a mean baseline; it wins where sigma^2 |H|_F^2 > 2 |a|^2 (d + 1) / (d + 4) (a gradient, H
    Hessian).

    References
    ----------
    Salimans, Ho, Chen, Sidor, Sutskever (2017), Evolution strategies as a scalable alternative, section 2.1 (mirrored
    sampling).
    """

    base: Sampler = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_instance("the base of Antithetic()", self.base, Sampler, "Gaussian()")
        if self.base.mirrored:
            raise ValueError("Antithetic() got a base that is mirrored already. Pass the sampler underneath.")

    @property
    def block(self) -> int:
        return 2 * self.base.block

    @property
    def mirrored(self) -> bool:
        return True

    @property
    def separable(self) -> bool:
        return self.base.separable

    @property
    def fused(self) -> bool:
        return self.base.fused

    @property
    def law(self) -> Law:
        return self.base.law

    def noise(self, key: Key, n: int, dim: int) -> Philox:
        """Return ``n`` rows at ``key``."""
        if n % self.block:
            raise ValueError(
                f"Antithetic noise comes in blocks of {self.block} rows, got n={n}. Use a multiple of {self.block}."
            )
        # A base whose block depends on n or dim says so only now.
        base = self.base.noise(key, n // 2, dim)
        if isinstance(base, Philox) and base.sampler is not self.base:
            return Philox(replace(self, base=base.sampler), key, n, dim)
        return Philox(self, key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        """Write the rectangle of ``out.shape`` with corner (row, column)."""
        first, last = row // 2, (row + len(out) + 1) // 2
        half = np.empty((last - first, out.shape[1]), np.float32)
        self.base.fill(key, first, column, dim, half)
        numbers = np.arange(row, row + len(out))
        signs = np.where(numbers % 2 == 0, np.float32(1.0), np.float32(-1.0))
        np.multiply(half[numbers // 2 - first], signs[:, None], out=out)
