"""Global search along coordinates, for functions that are sums over them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, Given, Key, check_seed, child
from ..records import Evals, Info, Population
from .gradient_es import check_sigma, fit_sigma

_REACH = 4.0
_SPLITS = 3
_AGREE = 1e-12
_MOVES = 1e-9


@dataclass(frozen=True, eq=False)
class CoordinatesState:
    """State of :class:`Coordinates`: tried places and values of every coordinate, (d, m), sorted by place.

    ``mean`` is the best place of every coordinate, ``value`` what f is there; ``splits`` counts tests of additivity
    that were passed, ``failed`` says that one was not.
    """

    seed: int
    generation: int
    mean: Array
    value: float
    sigma: Array
    splits: int
    places: Array
    values: Array
    moved: bool
    failed: float


@dataclass(frozen=True, eq=False)
class Coordinates:
    sigma: float | Array = 0.5
    n: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", check_sigma(self.sigma))

    def init(self, x0: Array, seed: int) -> CoordinatesState:
        """Return the state before the first generation, at ``x0`` (d,)."""
        scale = fit_sigma(self.sigma, x0.size)
        if np.ndim(scale) == 2:
            raise ValueError("Coordinates() got a factor as sigma. Pass one number or one per coordinate.")
        sigma = np.array(np.broadcast_to(scale, x0.size))
        none = np.empty((x0.size, 0))
        return CoordinatesState(
            check_seed(seed), 0, np.array(x0, np.float64), math.nan, sigma, 0, none, none, False, math.nan
        )

    def ask(self, state: CoordinatesState) -> Population:
        """Return the points of a test, or one new place for each coordinate."""
        rows = self._rows(state)
        noise = Given(np.empty((0, state.mean.size)), key=Key(state.seed, state.generation))
        return Population(state.mean, state.sigma, noise, rows, ("point",) * len(rows), share="none")

    def _rows(self, state: CoordinatesState) -> Array:
        dim = state.mean.size
        if state.splits < min(_SPLITS, dim):
            first, second = _halves(state)
            moves = np.stack([np.zeros(dim), first, second, first + second])
            return state.mean + (moves if state.splits == 0 else moves[1:])
        rows = np.tile(state.mean, (dim + state.moved, 1))
        rows[np.arange(dim), np.arange(dim)] = self._places(state)
        return rows

    def _places(self, state: CoordinatesState) -> Array:
        count = state.places.shape[1]
        if count < 3:
            return state.mean + _REACH * state.sigma * (-1.0) ** (count + 1)
        return _next(state.places, state.values, count % 2 == 0)

    def tell(self, state: CoordinatesState, evals: Evals) -> tuple[CoordinatesState, Info]:
        values = evals.values
        ahead = replace(state, generation=state.generation + 1)
        dim = state.mean.size
        if not np.isfinite(values).any():
            raise EvaluationError("all values failed")
        if state.splits < min(_SPLITS, dim):
            start = values[0] if state.splits == 0 else state.value
            a, b, both = values[-3:]
            size = np.abs(values).sum() + abs(start)
            apart = abs(both - a - b + start)
            fair = min(abs(a - start), abs(b - start)) > _MOVES * size
            good = apart <= _AGREE * size and fair
            if dim == 1: good=True
            after = replace(ahead, value=float(start), splits=state.splits + 1 if good else 99, failed=math.nan if good else float(apart))
            if after.splits == min(_SPLITS, dim):
                after = replace(after, places=state.mean[:, None].copy(), values=np.zeros((dim, 1)))
            return after, Info(state.generation, None, evals.failures, {})
        return self._learn(ahead, self._places(state), values), Info(state.generation, None, evals.failures, {})

    def _learn(self, state: CoordinatesState, places: Array, values: Array) -> CoordinatesState:
        dim = state.mean.size
        if state.moved:
            apart = abs(values[dim] - state.value)
            if not apart <= 1e3 * _AGREE * (abs(values[dim]) + abs(state.value)):
                return replace(state, failed=float(apart))
            state = replace(state, value=float(values[dim]))
        at = np.argmin(state.values, 1)
        own = state.values[np.arange(dim), at]
        new = np.where(np.isfinite(values[:dim]), values[:dim] - state.value + own, np.inf)
        better = new < own
        mean = np.where(better, places, state.mean)
        value = state.value + float((new - own)[better].sum())
        all_places, all_values = np.column_stack([state.places, places]), np.column_stack([state.values, new])
        order = np.argsort(all_places, 1, kind="stable")
        return replace(
            state, mean=mean, value=value, moved=int(better.sum())>1,
            places=np.take_along_axis(all_places, order, 1), values=np.take_along_axis(all_values, order, 1),
        )

    def stop(self, state: CoordinatesState) -> dict[str, float]:
        return {} if math.isnan(state.failed) else {"not additive": state.failed}


def _halves(state):
    dim = state.mean.size
    bits = child(state.seed, state.splits)
    order = np.argsort([child(bits, j) for j in range(dim)])
    part = np.zeros(dim, bool); part[order[: dim // 2]] = True
    signs = np.array([1.0 if child(bits, dim + j) >> 63 else -1.0 for j in range(dim)])
    size = state.sigma * signs * (0.5 + np.array([child(bits, 2*dim + j) / 2.0**64 for j in range(dim)]))
    return np.where(part, size, 0.0), np.where(part, 0.0, size)


EPS = 1e-2
def _next(places, values, local):
    """Return the next place of every coordinate."""
    dim, m = places.shape
    rows = np.arange(dim)
    at = np.argmin(values, 1)
    best = values[rows, at]
    rise = np.sqrt(values - best[:, None] + EPS * np.median(values - best[:, None], 1)[:,None] + 1e-300)
    gaps = np.diff(places, axis=1)
    hard = (rise[:, :-1] + rise[:, 1:]) / np.maximum(gaps, 1e-300)
    hard[gaps < 1e-12*np.maximum(1e-3,abs(places[:,1:]))] = np.inf
    k = np.argmin(hard, 1)
    share = 0.5
    out = places[rows, k] + share * gaps[rows, k]
    edge = (at == 0) | (at == m - 1)
    span = places[:, -1] - places[:, 0]
    out = np.where(at == 0, places[:, 0] - span, np.where(at == m - 1, places[:, -1] + span, out))
    if local:
        j = np.clip(at, 1, m - 2)
        x0, x1, x2 = places[rows, j - 1], places[rows, j], places[rows, j + 1]
        f0, f1, f2 = values[rows, j - 1], values[rows, j], values[rows, j + 1]
        with np.errstate(all="ignore"):
            p = (x1 - x0) ** 2 * (f1 - f2) - (x1 - x2) ** 2 * (f1 - f0)
            q = 2.0 * ((x1 - x0) * (f1 - f2) - (x1 - x2) * (f1 - f0))
            t = x1 - p / q
            gain = np.abs(t - x1)
            small = gain < 1e-9 * np.minimum(x2-x0, 1)
            # away from x1 toward the larger side when too close
            wide = np.where(x2 - x1 > x1 - x0, x1 + 0.1 * (x2 - x1), x1 - 0.1 * (x1 - x0))
            lop = np.maximum(x2 - x1, x1 - x0) > 20 * np.minimum(x2 - x1, x1 - x0)
            t = np.where(lop, wide, t)
        done = (f0 - f1 < 1e-13*abs(f1)+1e-12) & (f2 - f1 < 1e-12)
        good = np.isfinite(t) & (t > x0) & (t < x2) & ~edge & ~done & (t != x1) & (gain > 1e-10)
        out = np.where(good, t, out)
    return out
