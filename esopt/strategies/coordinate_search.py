"""Global search along every coordinate at once, for functions that are sums over coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, Given, Key, check_seed, child
from ..records import Evals, Info, Population
from .gradient_es import check_sigma, fit_sigma

_REACH = 4.0
"""The first places of a coordinate are this many sigma to both sides of x0."""
_SPLITS = 3
"""Tests of additivity that have to be passed."""
_AGREE, _MOVES = 1e-12, 1e-9
"""Rounding errors, and what counts as a change of f, both relative to the size of the values."""
_DEEPER = 1e-2
"""How far below the best place others are looked for, relative to the median of the values."""
_NEAR, _FLAT = 5e-11, 1e-14
"""Distances over sigma, and values relative to their median, that are too small to go on."""


@dataclass(frozen=True, eq=False)
class CoordinateSearchState:
    """State of :class:`CoordinateSearch`: ``places`` that were tried and their ``values``, (d, m), sorted by place.

    ``mean`` has the best place of every coordinate, ``value`` is f there, evaluated again if more than one coordinate
    ``moved``; ``splits`` counts tests of additivity, ``apart`` is by how much the last one failed, nan if none did.
    """

    seed: int
    generation: int
    mean: Array
    value: float
    sigma: Array
    splits: int
    moved: bool
    places: Array
    values: Array
    apart: float


@dataclass(frozen=True, eq=False)
class CoordinateSearch:
    """Global search of one variable in every coordinate at once, where f is a sum over coordinates; else it stops.

    First f(x + a + b) - f(x + a) - f(x + b) + f(x) = 0 is tested for random halves a, b of the coordinates: four
    evaluations where f is not additive. Then every generation tries one place in each coordinate, in turns the vertex
    of the parabola through the best place and its neighbours, and the middle of the interval where the least
    curvature is enough for something better (STEP). Not for noise.

    Parameters
    ----------
    sigma : the first places are 4 sigma to both sides of x0; a number or one per coordinate.

    References
    ----------
    Langerman, Seront, Bersini (1994), S.T.E.P.: the easiest way to optimize a function; Posik, Baudis (2015),
    Dimension selection in axis-parallel Brent-STEP method for black-box optimization of separable continuous functions.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> def rastrigin(x): return 10.0 * len(x) + float((x * x - 10.0 * np.cos(2.0 * np.pi * x)).sum())
    >>> found = esopt.minimize(rastrigin, [1.7] * 10, strategy=esopt.CoordinateSearch(), target=1e-8)
    >>> bool(found.value <= 1e-8) and found.evaluations < 1000
    True
    """

    keeps_values: ClassVar[bool] = True

    sigma: float | Array = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", check_sigma(self.sigma))

    def init(self, x0: Array, seed: int) -> CoordinateSearchState:
        """Return the state before the first generation, at ``x0`` (d,)."""
        scale = fit_sigma(self.sigma, x0.size)
        if np.ndim(scale) == 2:
            raise ValueError("CoordinateSearch() got a factor as sigma. Pass one number or one per coordinate.")
        sigma, none = np.array(np.broadcast_to(scale, x0.size)), np.empty((x0.size, 0))
        return CoordinateSearchState(
            check_seed(seed), 0, np.array(x0, np.float64), math.nan, sigma, 0, False, none, none, math.nan
        )

    def ask(self, state: CoordinateSearchState) -> Population:
        """Return the points of a test, or one new place for each coordinate."""
        rows = _split_rows(state) if state.splits < _needed(state) else _search_rows(state)
        noise = Given(np.empty((0, state.mean.size)), key=Key(state.seed, state.generation))
        return Population(state.mean, state.sigma, noise, rows, ("point",) * len(rows), share="none")

    def tell(self, state: CoordinateSearchState, evals: Evals) -> tuple[CoordinateSearchState, Info]:
        """Return the state after the points of :meth:`ask`, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        if np.isnan(evals.values).all():
            raise EvaluationError(
                f"all {evals.values.size} evaluations of generation {state.generation} failed.\n"
                "Check the objective at es.mean, or start from a point and with a sigma where it can be evaluated."
            )
        ahead = replace(state, generation=state.generation + 1)
        after = _compare(ahead, evals.values) if state.splits < _needed(state) else _learn(ahead, state, evals.values)
        return after, Info(state.generation, None, evals.failures)

    def stop(self, state: CoordinateSearchState) -> dict[str, float]:
        """Return "not additive" with the difference, once one was found."""
        return {} if math.isnan(state.apart) else {"not additive": state.apart}


def _needed(state: CoordinateSearchState) -> int:
    return min(_SPLITS, state.mean.size)


def _split_rows(state: CoordinateSearchState) -> Array:
    """Return x (only the first time), x + a, x + b, x + a + b for random moves a and b of different coordinates."""
    dim = state.mean.size
    if dim == 1:
        return state.mean[None, :].copy()
    seed = child(state.seed, state.splits)
    numbers = np.array([child(seed, j) for j in range(2 * dim)], np.float64) / 2.0**63 - 1.0
    moves = state.sigma * np.sign(numbers[dim:]) * (0.5 + np.abs(numbers[dim:]))
    first = np.zeros(dim, bool)
    first[np.argsort(numbers[:dim])[: dim // 2]] = True
    rows = state.mean + np.stack([np.zeros(dim), np.where(first, moves, 0.0), np.where(first, 0.0, moves), moves])
    asked: Array = rows if state.splits == 0 else rows[1:]
    return asked


def _compare(state: CoordinateSearchState, values: Array) -> CoordinateSearchState:
    """Return the state after a test of additivity."""
    dim = state.mean.size
    start = float(values[0]) if state.splits == 0 else state.value
    apart, good = 0.0, math.isfinite(start)
    if dim > 1:
        one, two, both = (float(value) for value in values[-3:])
        size = abs(start) + abs(one) + abs(two) + abs(both)
        apart = abs(both - one - two + start)
        good = apart <= _AGREE * size and min(abs(one - start), abs(two - start)) > _MOVES * size
    if not good:
        return replace(state, value=start, apart=apart if math.isfinite(apart) else math.inf)
    after = replace(state, value=start, splits=state.splits + 1)
    if after.splits < _needed(state):
        return after
    return replace(after, places=state.mean[:, None].copy(), values=np.zeros((dim, 1)))


def _search_rows(state: CoordinateSearchState) -> Array:
    """Return the best point with one coordinate at a new place, d times, and the best point itself if it is new."""
    dim, count = state.places.shape
    rows = np.tile(state.mean, (dim + (state.moved or count < 3), 1))
    np.fill_diagonal(rows, _next_places(state))
    return rows


def _learn(ahead: CoordinateSearchState, state: CoordinateSearchState, values: Array) -> CoordinateSearchState:
    """Return the state with the values of the rows of :func:`_search_rows`."""
    dim = state.mean.size
    if values.size > dim and state.moved:
        # All coordinates at their best places: f must be what their sum says.
        apart = abs(float(values[dim]) - state.value)
        size = abs(float(values[dim])) + abs(state.value) + 0.01 * abs(float(state.values.min(1).sum()))
        if not apart <= 1e3 * _AGREE * size:
            return replace(ahead, apart=apart if math.isfinite(apart) else math.inf)
        state = replace(state, value=float(values[dim]))
    every, places = np.arange(dim), _next_places(state)
    own = state.values[every, np.argmin(state.values, 1)]
    new = np.where(np.isfinite(values[:dim]), values[:dim] - state.value + own, math.inf)
    better = new < own
    all_places, all_values = np.column_stack([state.places, places]), np.column_stack([state.values, new])
    order = np.argsort(all_places, 1, kind="stable")
    return replace(
        ahead,
        mean=np.where(better, places, state.mean),
        value=state.value + float((new - own)[better].sum()),
        moved=int(better.sum()) > 1,
        places=np.take_along_axis(all_places, order, 1),
        values=np.take_along_axis(all_values, order, 1),
    )


def _next_places(state: CoordinateSearchState) -> Array:
    """Return the next place of every coordinate, (d,)."""
    places, values = state.places, state.values
    count = places.shape[1]
    if count < 3:
        return state.mean if count == 0 else places[:, 0] + _REACH * state.sigma * (1.0 if count == 1 else -1.0)
    best = np.argmin(values, 1)
    span = places[:, -1] - places[:, 0]
    outside = np.where(best == 0, places[:, 0] - span, places[:, -1] + span)
    border = (best == 0) | (best == count - 1)
    out = np.where(border, outside, _easiest(places, values))
    if count % 2 == 0:
        near = _vertex(places, values, np.clip(best, 1, count - 2), _NEAR * state.sigma)
        out = np.where(border | np.isnan(near), out, near)
    return out


def _easiest(places: Array, values: Array) -> Array:
    """Return the middle of the interval through whose ends the flattest parabola gets below the best value, (d,)."""
    above = np.minimum(values, 1e300) - values.min(1)[:, None]
    rise = np.sqrt(above + _DEEPER * np.median(above, 1)[:, None] + 1e-300)
    gaps = np.diff(places, axis=1)
    tiny = 1e-12 * np.maximum(np.abs(places[:, 1:]), 1e-3)
    hard = np.where(gaps > tiny, (rise[:, :-1] + rise[:, 1:]) / np.maximum(gaps, 1e-300), math.inf)
    every, at = np.arange(len(places)), np.argmin(hard, 1)
    middle: Array = places[every, at] + 0.5 * gaps[every, at]
    return middle


def _vertex(places: Array, values: Array, at: Array, near: Array) -> Array:
    """Return the vertex of the parabola through the places ``at`` - 1, ``at``, ``at`` + 1, (d,).

    It is nan where the parabola is flat, as far as rounding errors let see, or the vertex is as ``near`` as it matters.
    """
    every = np.arange(len(places))
    (x0, x1, x2), (f0, f1, f2) = ([table[every, at + k] for k in (-1, 0, 1)] for table in (places, values))
    left, right = x1 - x0, x2 - x1
    with np.errstate(all="ignore"):
        down, up = f0 - f1, f2 - f1
        vertex = x1 - 0.5 * (right**2 * down - left**2 * up) / -(right * down + left * up)
        # Three places of which two are close say little: come closer from the far side.
        lopsided = np.maximum(left, right) > 20.0 * np.minimum(left, right)
        vertex = np.where(lopsided, x1 + 0.1 * np.where(right > left, right, -left), vertex)
        level = _FLAT * np.median(values - values.min(1)[:, None], 1)
        flat = (down <= level) & (up <= level)
    inside = (vertex > x0) & (vertex < x2) & (np.abs(vertex - x1) > near)
    useful: Array = np.where(inside & ~flat, vertex, math.nan)
    return useful
