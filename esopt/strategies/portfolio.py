"""A portfolio for small dimensions: local searches, coordinates one by one, CMA-ES; shares follow success."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, check_seed, child
from ..records import Evals, Info, Population
from .cmaes import CMAES
from .coordinates import Coordinates, CoordinatesState
from .gradient_es import check_sigma
from .multistart import Multistart, MultistartState
from .quasi_newton import QuasiNewton
from .restarts import BIPOP, Plan, Restarts, RestartState

ARMS = ("coordinates", "local", "cma")
_COORDINATES, _LOCAL, _CMA = 0, 1, 2

LEAD = 0.5      # share of local arm while it holds the best value
LAG = 0.15
FIRST = 1e9     # evaluations / d of the first local search before shares
RUNS = 2
LARGE = 4.0
CAP = 50.0
SHORT = 40.0
ALIKE = 1e-3
PATIENT = 50.0


@dataclass(frozen=True, eq=False)
class PortfolioState:
    """State of :class:`Portfolio`: those of its arms, and their evaluations and best values (3,), as in ``ARMS``."""

    seed: int
    generation: int
    mean: Array
    value: float
    coordinates: CoordinatesState
    local: MultistartState
    cma: RestartState
    turn: int
    wide: bool
    used: Array
    best: Array
    improved: int


@dataclass(frozen=True, eq=False)
class Portfolio:
    sigma: float | Array = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", check_sigma(self.sigma))

    def init(self, x0: Array, seed: int) -> PortfolioState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        start, seed = np.array(x0, np.float64), check_seed(seed)
        arms = _arms(self, start.size, False)
        states = [arm.init(start, child(seed, number)) for number, arm in enumerate(arms)]
        return PortfolioState(
            seed, 0, start, math.inf, states[0], states[1], states[2], _COORDINATES, False, np.zeros(3),
            np.full(3, math.inf), 0,
        )

    def ask(self, state: PortfolioState) -> Population:
        arm, inner = self._turn(state)
        return arm.ask(inner)

    def _turn(self, state: PortfolioState) -> tuple[Any, Any]:
        arms = _arms(self, state.mean.size, state.wide)
        return arms[state.turn], (state.coordinates, state.local, state.cma)[state.turn]

    def tell(self, state: PortfolioState, evals: Evals) -> tuple[PortfolioState, Info]:
        arm, inner = self._turn(state)
        after, info = arm.tell(inner, evals)
        used, best = state.used.copy(), state.best.copy()
        used[state.turn] += evals.values.size
        low = float(np.fmin.reduce(evals.values))
        best[state.turn] = np.fmin(best[state.turn], low)
        mean, value, improved = state.mean, state.value, state.improved
        if low < value:
            mean, value, improved = arm.ask(inner)[int(np.nanargmin(evals.values))], low, int(used.sum())
        name = ("coordinates", "local", "cma")[state.turn]
        ahead = replace(
            state, generation=state.generation + 1, mean=mean, value=value, used=used, best=best, improved=improved,
            **{name: after},
        )
        ahead = self._next(ahead)
        choices = {**info.choices, "arm": ARMS[state.turn]}
        for k in range(3):
            choices[ARMS[k]] = f"{int(used[k])} evaluations, best {best[k]:.6g}"
        return ahead, replace(info, generation=state.generation, choices=choices)

    def stop(self, state: PortfolioState) -> dict[str, float]:
        return {}

    def _next(self, state: PortfolioState) -> PortfolioState:
        """Choose whose turn it is."""
        dim = state.mean.size
        coordinates = _arms(self, dim, state.wide)[0]
        used = state.used
        additive = not coordinates.stop(state.coordinates)
        if additive and (used[0] < 2.0 * state.improved + PATIENT * dim):
            return replace(state, turn=_COORDINATES)
        if state.turn == _CMA and state.cma.inner.generation % 5 != 0:
            return state
        if state.turn == _LOCAL and state.local.inner.phase != 1:
            return state
        first = state.local.runs == 0 and used[1] < FIRST * dim
        rugged = state.local.reason in ("line", "gradient") and state.local.length < SHORT * dim
        if first or (state.local.runs < RUNS and not rugged):
            return replace(state, turn=_LOCAL)
        if used[2] == 0.0:
            return self._open(state)
        lead = state.best[1] < state.best[2]
        share = LEAD if lead and not (rugged and used[2] < 100 * dim) else LAG
        turn = _LOCAL if used[1] < share * (used[1] + used[2]) else _CMA
        if additive and used[0] < 0.3 * used.sum():
            turn = _COORDINATES
        return replace(state, turn=turn)

    def _open(self, state: PortfolioState) -> PortfolioState:
        """Begin CMA-ES, with a large population where local searches ended differently."""
        local = state.local
        alike = local.runs > 1 and local.high - local.low <= ALIKE * (local.worst - local.low)
        runs = replace(state.cma.runs, cap=0 if alike else int(CAP * state.mean.size))
        return replace(state, turn=_CMA, cma=replace(state.cma, runs=runs))


@dataclass(frozen=True)
class Opening(BIPOP):
    large: float = 4.0
    def next(self, runs, uniforms):
        if runs.runs == 0:
            return Plan(self.large, 1.0, False, 0)
        return super().next(runs, uniforms)


@lru_cache(maxsize=64)
def _arms(portfolio: Portfolio, dim: int, wide: bool) -> tuple[Any, Any, Any]:
    sigma = portfolio.sigma
    return Coordinates(sigma), Multistart(QuasiNewton(sigma)), Restarts(CMAES(sigma), Opening(weighted=True, large=LARGE))
