"""Moments of observations: what a policy divides its inputs by.

They are sums, so that merging is exact: the moments of two sets of observations are those of their union, up to
rounding, and merging rows in order gives the same bits whoever played them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .network import add_rows

Array = NDArray[np.float64]

FLOOR = 1e-3
"""Standard deviations below it count as none."""

_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, sum and sum of squares of observations.

    Parameters
    ----------
    count : number of observations.
    sums, squares : (inputs,)

    Examples
    --------
    >>> import numpy as np
    >>> moments = Moments.of(np.array([[1.0, 7.0], [3.0, 7.0]]))
    >>> moments.mean, moments.std()
    (array([2., 7.]), array([1., 1.]))
    """

    count: int
    sums: Array
    squares: Array

    def __post_init__(self) -> None:
        if self.sums.ndim != 1 or self.sums.shape != self.squares.shape or self.count < 0:
            raise ValueError(
                f"Moments() got count={self.count}, sums of shape {self.sums.shape} and squares of shape "
                f"{self.squares.shape}. Pass a count of 0 or more and two arrays (inputs,)."
            )

    @classmethod
    def none(cls, inputs: int) -> Moments:
        """Return the moments of no observation."""
        return cls(0, np.zeros(inputs), np.zeros(inputs))

    @classmethod
    def of(cls, observations: ArrayLike) -> Moments:
        """Return the moments of ``observations`` (m, inputs)."""
        rows = np.asarray(observations, np.float64)
        return cls.none(rows.shape[1]).merged(len(rows), rows, np.square(rows))

    def merged(self, count: int, sums: Array, squares: Array) -> Moments:
        """Return the moments with ``count`` more observations.

        Their ``sums`` and ``squares``, (m, inputs) both, are added row by row.
        """
        if not len(sums):
            return self
        pairs = (self.sums, sums), (self.squares, squares)
        first, second = (add_rows(np.concatenate([start[None, :], rows])) for start, rows in pairs)
        return Moments(self.count + int(count), first, second)

    @property
    def mean(self) -> Array:
        """Mean (inputs,); 0 of no observation."""
        return self.sums / max(self.count, 1)

    def std(self, floor: float = FLOOR) -> Array:
        """Return the standard deviation (inputs,), and 1 where there is next to none.

        An input whose deviation is below ``floor``, or below a millionth of its mean, where it is rounding, is only
        centred. Dividing by it would blow up the first observation that differs.
        """
        mean = self.mean
        found = np.sqrt(np.maximum(self.squares / max(self.count, 1) - np.square(mean), 0.0))
        return np.where((found >= floor) & (found >= _ROUNDING * np.abs(mean)), found, 1.0)


@dataclass(frozen=True)
class Running:
    """Normalise by the moments of all that candidates observed in earlier generations, frozen within a generation.

    Parameters
    ----------
    after : generations at the beginning whose observations are left out, so that nothing is normalised until then.
    floor : see :meth:`Moments.std`.

    References
    ----------
    Mania, Guy, Recht (2018), Simple random search provides a competitive approach to reinforcement learning, algorithm
    2 (V2), whose ``after`` is 0.
    """

    after: int = 0
    floor: float = FLOOR

    def __post_init__(self) -> None:
        if isinstance(self.after, bool) or not isinstance(self.after, (int, np.integer)) or self.after < 0:
            raise ValueError(f"after must be a whole number of generations, got {self.after!r}. Pass for example 0.")
        if not 0.0 < self.floor < np.inf:
            raise ValueError(f"floor must be positive and finite, got {self.floor!r}. Pass for example {FLOOR}.")


Normalise = str | Running | Moments
"""How observations are normalised: "running" (:class:`Running`), "off", or by given moments."""


def check_normalise(normalise: Normalise) -> Running | Moments | None:
    """Return what ``normalise`` means, None for "off".

    Raises
    ------
    ValueError  for anything else.
    """
    if isinstance(normalise, (Running, Moments)):
        return normalise
    known: dict[str, Running | None] = {"running": Running(), "off": None}
    if not isinstance(normalise, str) or normalise not in known:
        raise ValueError(f'normalise must be "running", "off", Running(...) or Moments, got {normalise!r}.')
    return known[normalise]
