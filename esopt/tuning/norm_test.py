"""As many rows as the gradient needs to be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..protocols import State
from ..records import Gradient, Population
from ..schedules import check_fraction, check_positive
from ._parts import NOTHING, SignalState, add


@dataclass(frozen=True)
class NormTest:
    """The smallest n whose gradient has a total variance of at most ratio^2 |grad J|^2.

    Far from the optimum few rows do; near it, and under noise, the gradient fades and n grows, so that a rule with a
    constant learning rate goes on descending. Where f is a slope, n antithetic pairs have the variance (d + 1) |a|^2 /
    n: the test asks for about (d + 1) / ratio^2 pairs in d dimensions.

    Parameters
    ----------
    most : largest n; the strategy rounds up to whole blocks.
    least : smallest n; None for that of the strategy.
    ratio : standard deviation of the estimate over the length of the gradient.
    change : n changes by this factor at most from one generation to the next.
    decay : weight of the past in the averages, in [0, 1).

    References
    ----------
    Byrd, Chin, Nocedal, Wu (2012), Sample size selection in optimization methods for machine learning.
    """

    most: int
    least: int | None = None
    ratio: float = 1.0
    change: float = 1.5
    decay: float = 0.9

    def __post_init__(self) -> None:
        for name in ("most", "least"):
            size = getattr(self, name)
            whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 1
            if not (whole or (name == "least" and size is None)):
                raise ValueError(f"{name} must be a positive whole number, got {size!r}. Pass for example most=1024.")
        if self.least is not None and self.least > self.most:
            raise ValueError(f"least must not be above most, got {self.least} and {self.most}. Swap them.")
        check_positive("ratio", self.ratio)
        check_positive("change - 1", self.change - 1.0)
        check_fraction("decay", self.decay)

    def init(self, dim: int) -> SignalState:
        return NOTHING

    def size(self, gradient: Gradient, population: Population, least: int, state: State) -> tuple[int, SignalState]:
        """Return the number of rows that the test asks for, in [least, most]."""
        rows = population.n
        after = add(gradient, float(rows), self.decay, state)
        if not after.weight:
            return rows, after
        low = rows / self.change
        high = rows * self.change
        needed = after.noise / (self.ratio**2 * after.signal) if after.signal > 0.0 else math.inf
        bounded = min(max(needed, low), high)
        return max(least if self.least is None else self.least, min(self.most, math.ceil(bounded))), after
