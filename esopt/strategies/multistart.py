"""Local searches from many starts: for smooth functions with some tens of optima."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from .._parts import check_instance
from ..errors import EvaluationError
from ..noise import Array, Key, check_seed, child
from ..records import Evals, Info, Population
from ..samplers.gaussian import Gaussian
from .quasi_newton import QuasiNewton, QuasiNewtonState

_PATIENCE = 30.0
"""A search ends if even this many times its next or last gain would leave it above the best."""
_AROUND = 1.2
"""Standard deviation of new starts, over sigma."""
_FARTHEST = 4.0
"""Ends farther from x0 than this times sigma do not draw the next starts after them."""


@dataclass(frozen=True, eq=False)
class MultistartState:
    """State of :class:`Multistart`: the current search, the best point, and the mean of the ``ends`` so far.

    ``low`` and ``high`` are the lowest and highest value that a finished search ended with.
    """

    seed: int
    generation: int
    x0: Array
    inner: QuasiNewtonState
    mean: Array
    value: float
    runs: int
    used: int
    ends: int
    centre: Array
    low: float
    high: float
    worst: float
    length: int
    reason: str


@dataclass(frozen=True, eq=False)
class Multistart:
    """Begin a new :class:`QuasiNewton` search whenever one has ended, around the mean of the optima found so far.

    A search that can be foreseen to end above the best is given up.

    Parameters
    ----------
    inner : the local search; new starts are spread by 1.2 times its sigma.
    """

    inner: QuasiNewton = field(default_factory=QuasiNewton)

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, QuasiNewton, "QuasiNewton()")

    @property
    def sigma(self) -> float | Array:
        """The sigma of the local search."""
        return self.inner.sigma

    def init(self, x0: Array, seed: int) -> MultistartState:
        """Return the state before the first generation, at ``x0`` (d,)."""
        start = np.array(x0, np.float64)
        inner = self.inner.init(start, child(check_seed(seed), 0))
        return MultistartState(seed, 0, start, inner, start, math.inf, 0, 0, 0, start, math.inf, -math.inf, -math.inf, 0, "")

    def ask(self, state: MultistartState) -> Population:
        """Return the points of the current search."""
        return self.inner.ask(state.inner)

    def tell(self, state: MultistartState, evals: Evals) -> tuple[MultistartState, Info]:
        """Return the state after the update; at the end of a search, that of the next one."""
        runs = state.runs
        if runs > 0 and not np.isfinite(evals.values).all() and np.isnan(state.inner.value):
            inner, reasons, info = state.inner, {"failed": 0.0}, Info(state.generation, None, evals.failures)
        else:
            inner, info = self.inner.tell(state.inner, evals)
            reasons = self.inner.stop(inner)
        mean, value = state.mean, state.value
        at = int(np.nanargmin(evals.values))
        if evals.values[at] < value:
            mean, value = self.ask(state)[at], float(evals.values[at])
        after = replace(
            state, generation=state.generation + 1, inner=inner, mean=mean, value=value, used=state.used + evals.values.size
        )
        if math.isfinite(evals.values[0]):
            after = replace(after, worst=max(after.worst, float(evals.values[0])))
        foreseen = _foresee(inner)
        if not reasons and runs > 0 and foreseen > state.value:
            reasons = {"hopeless": foreseen}
        if reasons:
            after = self._restart(after, next(iter(reasons)))
            info = replace(info, choices={**info.choices, "restart": f"search {after.runs}, after {', '.join(reasons)}"})
        return after, replace(info, generation=state.generation)

    def stop(self, state: MultistartState) -> dict[str, float]:
        """Return no reason: there is always another start."""
        return {}

    def _restart(self, state: MultistartState, reason: str) -> MultistartState:
        x0, sigma, end = state.x0, state.inner.sigma, state.inner.mean
        reach = _FARTHEST * sigma
        ends, low, high = state.ends + 1, state.low, state.high
        centre = state.centre + (np.clip(end, x0 - reach, x0 + reach) - state.centre) / (ends + 1.0)
        final = _foresee(state.inner) if reason == "hopeless" else state.inner.value
        if math.isfinite(final):
            low, high = min(low, final), max(high, final)
        number = state.runs + 1
        seed = child(state.seed, number)
        eps = Gaussian().noise(Key(seed, 0), 1, x0.size).rows()[0].astype(np.float64)
        inner = self.inner.init(centre + _AROUND * sigma * eps, seed)
        return replace(
            state, inner=inner, runs=number, used=0, length=state.used, ends=ends, centre=centre, low=low, high=high, reason=reason
        )


def _foresee(inner: QuasiNewtonState) -> float:
    """Return a value that the search will hardly fall below; minus infinity if nothing is known yet."""
    if inner.iterations < 2 or not inner.known:
        return -math.inf
    gain = max(-0.5 * float(inner.gradient @ inner.direction), inner.progress)
    return inner.value - _PATIENCE * gain
