"""Bounds around any strategy: it searches without them, and its candidates are mapped into the box."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._parts import check_instance
from ..maps import Clip, Map, where_in
from ..noise import Array
from ..protocols import Strategy
from ..records import Evals, Info, Population

_INWARD = 2.0**-8


@dataclass(frozen=True, eq=False)
class BoundedState:
    """State of :class:`Bounded`: that of the inner strategy, in search coordinates, and the mapped mean.

    ``weight`` is that of the penalty, nan until it is known.
    """

    inner: Any
    mean: Array
    weight: float

    @property
    def generation(self) -> int:
        """Generations told."""
        return int(self.inner.generation)


@dataclass(frozen=True, eq=False)
class Bounded:
    """Any strategy inside bounds. ``bounds=`` of :func:`esopt.minimize` and :class:`esopt.Optimizer` makes one.

    The inner strategy minimises F(y) = f(T(y)) + penalty(y) over all y, where T maps into the box: candidates, the mean
    and the result are T(y), gradients are multiplied by the derivative of T. Settings of the inner strategy (sigma,
    starts) are in y, which is x itself away from the bounds.

    Parameters
    ----------
    inner : a strategy.
    map : :class:`esopt.Smooth`, :class:`esopt.Reflect` or :class:`esopt.Clip`, or a :class:`esopt.maps.Map`.

    Notes
    -----
    Rank-based strategies stay so, except with :class:`esopt.Clip`. Estimators are unbiased for the smoothed F, the
    weight of a penalty taken as given. A start exactly on a bound is moved inside by 0.4 % of the box: a mirror is
    symmetric, so that antithetic pairs there would see no slope.

    Examples
    --------
    >>> import esopt
    >>> def f(x): return ((x - 2.0) ** 2).sum()
    >>> es = esopt.Optimizer(esopt.Bounded(esopt.CMAES(), esopt.Smooth(-1.0, 1.0)), [0.0] * 3, evaluations=2000)
    >>> while not es.stop():
    ...     info = es.tell([f(x) for x in es.ask()])
    >>> es.result.x.round(6)
    array([1., 1., 1.])
    """

    inner: Any
    map: Map

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        check_instance("map", self.map, Map, "Smooth(low, high)")

    def init(self, x0: Array, seed: int) -> BoundedState:
        """Return the state before the first generation, around ``x0`` (d,), which must be inside.

        Raises
        ------
        ValueError  for bounds of another size, and for a start outside.
        """
        low, high = (
            self._fit(name, bound, x0.size) for name, bound in (("low", self.map.low), ("high", self.map.high))
        )
        outside = (x0 < low) | (x0 > high)
        if outside.any():
            i = int(np.argmax(outside))
            shape = max(np.shape(self.map.low), np.shape(self.map.high), key=len) or x0.shape
            raise ValueError(
                f"x0{where_in(i, shape)} = {x0[i]:.17g} is outside its bounds [{low[i]:.17g}, {high[i]:.17g}]"
                f"{'' if outside.sum() == 1 else f', and so are {int(outside.sum()) - 1} others'}. "
                "Start inside, for example at np.clip(x0, low, high)."
            )
        inner = self.inner.init(self.map.inverse(_inset(x0, low, high)), seed)
        weight = self.map.weight if isinstance(self.map, Clip) and self.map.weight is not None else math.nan
        return BoundedState(inner, self._mean(inner), float(weight))

    def ask(self, state: BoundedState) -> Population:
        """Return this generation's population, mapped into the box."""
        return replace(self._ask(state), map=self.map)

    def tell(self, state: BoundedState, evals: Evals) -> tuple[BoundedState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if the inner strategy can use none of the values; the state is as before.
        """
        weight = state.weight
        if self.map.penalises or evals.grads is not None:
            evals, weight = self._pull(self._ask(state), evals, weight)
        inner, info = self.inner.tell(state.inner, evals)
        return BoundedState(inner, self._mean(inner), weight), info

    def stop(self, state: BoundedState) -> dict[str, float]:
        """Return the inner strategy's reasons to stop."""
        return dict(self.inner.stop(state.inner))

    def _ask(self, state: BoundedState) -> Population:
        population: Population = self.inner.ask(state.inner)
        return population

    def _mean(self, inner: Any) -> Array:
        return np.array(self.map.forward(inner.mean))

    def _pull(self, population: Population, evals: Evals, weight: float) -> tuple[Evals, float]:
        """Return evaluations of F in search coordinates, from those of f in the box; and the weight of the penalty."""
        rows = population.rows()
        grads = None if evals.grads is None else self.map.pullback(rows, evals.grads)
        if not self.map.penalises:
            return replace(evals, grads=grads), weight
        if not math.isfinite(weight):
            weight = _weigh(self.map, population, rows, evals.values)
        factor = weight if math.isfinite(weight) else 0.0
        if grads is not None:
            grads = grads + factor * self.map.slope(rows)
        return replace(evals, values=evals.values + factor * self.map.penalty(rows), grads=grads), weight

    def _fit(self, name: str, bound: Array, dim: int) -> Array:
        flat = np.ravel(bound)
        if flat.size not in (1, dim):
            raise ValueError(
                f"{name} has {flat.size} entries for x0 of size {dim}. Pass one number, or an array in the shape of x0."
            )
        return np.broadcast_to(flat, dim)


def _inset(x0: Array, low: Array, high: Array) -> Array:
    """Return ``x0`` with coordinates that are exactly on a bound moved inside."""
    with np.errstate(over="ignore"):
        width = np.where(np.isfinite(high - low), high - low, np.maximum(1.0, np.abs(x0)))
    moved = np.where(x0 == low, low + _INWARD * width, np.where(x0 == high, high - _INWARD * width, x0))
    return np.clip(moved, low, high)


def _weigh(box: Map, population: Population, rows: Array, values: Array) -> float:
    """Return the interquartile range of the values over what the penalty of one sigma in each coordinate is on average.

    nan where that is not a positive number.
    """
    finite = values[np.isfinite(values)]
    sizes = box.sizes if isinstance(box, Clip) else np.ones(1)
    scale = population.scale if population.separable else rows.std(axis=0)
    share = float(np.mean(np.square(np.broadcast_to(np.asarray(scale), population.dim) / sizes)))
    if finite.size < 2 or not share > 0.0:
        return math.nan
    upper, lower = np.quantile(finite, [0.75, 0.25])
    weight = float(upper - lower) / share
    return weight if 0.0 < weight < math.inf else math.nan
