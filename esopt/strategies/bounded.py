"""Bounds around any strategy: it searches without them, and its candidates are mapped into the box."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._parts import check_injectable, check_instance
from ..maps import Map, where_in
from ..noise import Array, Given
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
    and the result are T(y), and derivatives follow the chain rule. Settings of the inner strategy (sigma, starts) are
    in y, which is x itself away from the bounds.

    Parameters
    ----------
    inner : a strategy.
    map : :class:`esopt.Smooth`, :class:`esopt.Reflect`, :class:`esopt.Clip`, :class:`esopt.Rounded`, or a
        :class:`esopt.maps.Map`.

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

    @property
    def asynchronous(self) -> bool:
        """Whether ``inner`` is."""
        return bool(getattr(self.inner, "asynchronous", False))

    def init(self, x0: Array, seed: int) -> BoundedState:
        """Return the state before the first generation, around ``x0`` (d,), which must be inside.

        Raises
        ------
        ValueError  for bounds of another size, for a start outside, and, where the map mirrors, for a sigma of more
            than twice the width: candidates would be all over the mirror images, and have nothing to say.
        """
        low, high = (
            self._fit(name, bound, x0.size) for name, bound in (("low", self.map.low), ("high", self.map.high))
        )
        rounds = np.ravel(getattr(self.map, "rounds", np.False_))  # integers are not mirrored
        outside = (x0 < low) | (x0 > high)
        if outside.any():
            i = int(np.argmax(outside))
            advice = "Start inside, for example at np.clip(x0, low, high)."
            if np.broadcast_to(rounds, x0.shape)[i]:
                advice = "It is an integer: these are the least and the greatest whole number. Start at one of them."
            shape = max(np.shape(self.map.low), np.shape(self.map.high), key=len) or x0.shape
            raise ValueError(
                f"x0{where_in(i, shape)} = {x0[i]:.17g} is outside its bounds [{low[i]:.17g}, {high[i]:.17g}]"
                f"{'' if outside.sum() == 1 else f', and so are {int(outside.sum()) - 1} others'}. "
                f"{advice}"
            )
        inner = self.inner.init(self.map.inverse(np.where(rounds, x0, _inset(x0, low, high))), seed)
        if not self.map.penalises:
            _check_spread(np.where(rounds, 0.0, self.inner.ask(inner).deviations), low, high)
        given = getattr(self.map, "weight", None)
        weight = math.nan if given is None else given
        return BoundedState(inner, self._mean(inner), float(weight))

    def ask(self, state: BoundedState) -> Population:
        """Return this generation's population, mapped into the box.

        Raises
        ------
        ValueError  if the inner strategy needs second derivatives, and the map has none.
        """
        population = replace(self._ask(state), map=self.map)
        second = population.needs & {"hessians", "hvps"}
        if second:
            if not hasattr(self.map, "curvature"):
                raise ValueError(
                    f"the strategy needs {', '.join(sorted(second))}, but {type(self.map).__name__} has kinks, where "
                    "second derivatives miss what matters. Use Smooth(low, high)."
                )
            population = population.needing("grads")
        if population.probes is not None:
            # Along v in search coordinates is along T'(y) v in the box.
            population = replace(population, probes=Given(self._probes(population), key=population.noise.key))
        return population

    def tell(self, state: BoundedState, evals: Evals) -> tuple[BoundedState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if the inner strategy can use none of the values; the state is as before.
        """
        weight, told = state.weight, (evals.grads, evals.hessians, evals.hvps, evals.jvps)
        if self.map.penalises or any(derivative is not None for derivative in told):
            population = self._ask(state)
            rows = population.rows() if evals.arrivals is None else evals.arrivals.points
            evals = self._pull(population, rows, evals)
            if self.map.penalises:
                if not math.isfinite(weight):
                    weight = _weigh(self.map, population, evals.values)
                evals = self._penalise(population, rows, evals, weight if math.isfinite(weight) else 0.0)
        inner, info = self.inner.tell(state.inner, evals)
        return BoundedState(inner, self._mean(inner), weight), info

    def inject(self, state: BoundedState, rows: Array) -> BoundedState:
        """Return the state whose next population also holds the candidates ``rows`` (k, d), which must be inside.

        Raises
        ------
        TypeError  if the inner strategy takes none.
        ValueError  for rows outside.
        """
        check_injectable(self.inner)
        outside = (rows < np.ravel(self.map.low)) | (rows > np.ravel(self.map.high))
        if outside.any():
            row, i = (int(k[0]) for k in np.nonzero(outside))
            raise ValueError(
                f"inject() got {rows[row, i]:.17g} in coordinate {i}, outside the bounds. Pass np.clip(x, low, high)."
            )
        inner = self.inner.inject(state.inner, np.array([self.map.inverse(row) for row in rows]).reshape(rows.shape))
        return replace(state, inner=inner)

    def toward(self, state: BoundedState, gradient: Array) -> Array:
        """Return the candidate inside that lies against a ``gradient`` (d,) of f, as :meth:`CMAES.toward`.

        Raises
        ------
        ValueError  if the mean is on bounds in all coordinates in which the gradient is not zero.
        """
        check_injectable(self.inner)
        slope = self.map.pullback(state.inner.mean[None], gradient[None])[0]
        if not slope.any():
            raise ValueError("inject() got a gradient across the bounds that the mean is on. Pass a candidate instead.")
        return np.asarray(self.map.forward(self.inner.toward(state.inner, slope)))

    def stop(self, state: BoundedState) -> dict[str, float]:
        """Return the inner strategy's reasons to stop."""
        return dict(self.inner.stop(state.inner))

    def _ask(self, state: BoundedState) -> Population:
        population: Population = self.inner.ask(state.inner)
        return population

    def _mean(self, inner: Any) -> Array:
        return np.array(self.map.forward(inner.mean))

    def _probes(self, population: Population) -> Array:
        """Return the directions in the box of the probes in search coordinates, (n, d)."""
        if population.probes is None:
            return np.empty((0, population.dim))
        rows = replace(population, map=None).rows(0, population.n)
        return self.map.pullback(rows, np.asarray(population.probes.rows(), np.float64))

    def _pull(self, population: Population, rows: Array, evals: Evals) -> Evals:
        """Return the derivatives of f(T(y)) at the ``rows`` y, from those of f at T(y); T is elementwise."""
        grads, hessians, hvps = evals.grads, evals.hessians, evals.hvps
        bend = np.zeros((0, rows.shape[1]))
        if grads is not None and (hessians is not None or hvps is not None):
            bend = grads * getattr(self.map, "curvature")(rows)  # noqa: B009 - only some maps have one
        if hessians is not None:
            slopes = self.map.pullback(rows, np.ones_like(rows))
            if hessians.ndim == 2:
                hessians = hessians * slopes**2 + bend
            else:
                hessians = hessians * slopes[:, :, None] * slopes[:, None, :]
                diagonal = np.arange(rows.shape[1])
                hessians[:, diagonal, diagonal] += bend
        if hvps is not None and population.probes is not None:
            n = population.n
            hvps = self.map.pullback(rows[:n], hvps) + bend[:n] * population.probes.rows()
        if grads is not None:
            grads = self.map.pullback(rows, grads)
        return replace(evals, grads=grads, hessians=hessians, hvps=hvps)

    def _penalise(self, population: Population, rows: Array, evals: Evals, weight: float) -> Evals:
        """Return the evaluations with the penalty and its derivatives."""
        grads, jvps = evals.grads, evals.jvps
        if grads is not None:
            grads = grads + weight * self.map.slope(rows)
        if jvps is not None and population.probes is not None:
            slope = self.map.slope(rows[: population.n])
            jvps = jvps + weight * np.einsum("ij,ij->i", slope, population.probes.rows())
        return replace(evals, values=evals.values + weight * self.map.penalty(rows), grads=grads, jvps=jvps)

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


def _check_spread(deviations: Array, low: Array, high: Array) -> None:
    with np.errstate(over="ignore"):
        wide = deviations > 2.0 * (high - low)
    if wide.any():
        i = int(np.argmax(wide))
        raise ValueError(
            f"sigma is {deviations[i]:.3g} in coordinate {i}, whose bounds are {high[i] - low[i]:.3g} apart. "
            "Pass one that fits into the box, for example a fifth of its width in each coordinate, "
            "sigma=0.2 * (high - low)."
        )


def _weigh(box: Map, population: Population, values: Array) -> float:
    """Return the interquartile range of the values over what the penalty of one sigma in each coordinate is on average.

    nan where that is not a positive number.
    """
    finite = values[np.isfinite(values)]
    sizes = getattr(box, "sizes", np.ones(1))
    share = float(np.mean(np.square(population.deviations / sizes)))
    if finite.size < 2 or not share > 0.0:
        return math.nan
    upper, lower = np.quantile(finite, [0.75, 0.25])
    weight = float(upper - lower) / share
    return weight if 0.0 < weight < math.inf else math.nan
