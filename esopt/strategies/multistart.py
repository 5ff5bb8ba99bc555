"""Local searches from many starts: for smooth functions with some tens of optima."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from .._parts import check_instance
from ..noise import Array, Key, check_seed, child
from ..records import Evals, Info, Population
from ..samplers.gaussian import Gaussian
from .quasi_newton import QuasiNewton, QuasiNewtonState

_PATIENCE = 30.0
"""A search is given up if even this many times its next gain would leave it above the best value."""
_AROUND = 1.2
"""Standard deviation of new starts, over sigma."""
_FARTHEST = 4.0
"""How far from x0 an end counts for the centre of new starts, over sigma."""


@dataclass(frozen=True, eq=False)
class MultistartState:
    """State of :class:`Multistart`: the current search ``inner``, and the best point, ``mean``, with its ``value``.

    ``runs`` searches have ended, the last after ``length`` evaluations for ``reason``; the current one has ``used``
    some. ``centre`` is the mean of the ends, ``low`` and ``high`` are the lowest and highest value there (or that was
    to be expected there), ``worst`` is the highest value of a start.
    """

    seed: int
    generation: int
    x0: Array
    inner: QuasiNewtonState
    mean: Array
    value: float
    runs: int
    used: int
    length: int
    reason: str
    centre: Array
    low: float
    high: float
    worst: float


@dataclass(frozen=True, eq=False)
class Multistart:
    """Begin another :class:`QuasiNewton` search whenever one has ended, around the mean of the optima found so far.

    A search that can be foreseen to end above the best value is given up. Every search has a child seed.

    Parameters
    ----------
    inner : the local search; new starts have a standard deviation of 1.2 times its sigma.

    Examples
    --------
    >>> import esopt, math
    >>> def waves(x): return sum(0.05 * v * v - math.cos(v) for v in x)
    >>> found = esopt.minimize(waves, [9.0, 9.0], strategy=esopt.Multistart(esopt.QuasiNewton(3.0)), evaluations=2000)
    >>> round(found.value, 6)
    -2.0
    """

    keeps_values: ClassVar[bool] = True

    inner: QuasiNewton = field(default_factory=QuasiNewton)

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, QuasiNewton, "QuasiNewton()")

    def init(self, x0: Array, seed: int) -> MultistartState:
        """Return the state before the first generation, at ``x0`` (d,)."""
        start = np.array(x0, np.float64)
        inner = self.inner.init(start, child(check_seed(seed), 0))
        return MultistartState(
            seed, 0, start, inner, start, math.inf, 0, 0, 0, "", start, math.inf, -math.inf, -math.inf
        )

    def ask(self, state: MultistartState) -> Population:
        """Return the points of the current search."""
        return self.inner.ask(state.inner)

    def tell(self, state: MultistartState, evals: Evals) -> tuple[MultistartState, Info]:
        """Return the state after the update; at the end of a search, that of the next one.

        A start, or a point whose whole gradient cannot be evaluated, is left at once.
        """
        values = evals.values
        lost = math.isnan(state.inner.value) and not math.isfinite(values[0])
        lost = lost or (state.inner.turning and bool(np.isnan(values).all()))
        if lost:
            inner, info, reasons = state.inner, Info(state.generation, None, evals.failures), {"failed": math.nan}
        else:
            inner, info = self.inner.tell(state.inner, evals)
            reasons = self.inner.stop(inner)
        after = replace(state, generation=state.generation + 1, inner=inner, used=state.used + values.size)
        if math.isnan(state.inner.value) and math.isfinite(values[0]):
            after = replace(after, worst=max(state.worst, float(values[0])))
        low = float(np.fmin.reduce(values))
        if low < state.value:
            after = replace(after, mean=self.ask(state)[int(np.nanargmin(values))], value=low)
        final = math.nan if lost else inner.value
        if not reasons and state.runs > 0 and inner.value - _PATIENCE * inner.gain > state.value:
            final = inner.value - _PATIENCE * inner.gain
            reasons = {"hopeless": final}
        if reasons:
            after = self._restart(after, next(iter(reasons)), final)
            info = replace(info, choices={"restart": f"search {after.runs}, after {after.reason}"})
        return after, replace(info, generation=state.generation)

    def stop(self, state: MultistartState) -> dict[str, float]:
        """Return no reason: there is always another start."""
        return {}

    def _restart(self, state: MultistartState, reason: str, final: float) -> MultistartState:
        x0, sigma, number = state.x0, state.inner.sigma, state.runs + 1
        centre, low, high = state.centre, state.low, state.high
        if math.isfinite(final):
            end = np.clip(state.inner.mean, x0 - _FARTHEST * sigma, x0 + _FARTHEST * sigma)
            centre = centre + (end - centre) / (number + 1.0)
            low, high = min(low, final), max(high, final)
        seed = child(state.seed, number)
        eps = Gaussian().noise(Key(seed), 1, x0.size).rows()[0].astype(np.float64)
        inner = self.inner.init(centre + _AROUND * sigma * eps, seed)
        return replace(
            state, inner=inner, runs=number, used=0, length=state.used, reason=reason, centre=centre, low=low, high=high
        )
