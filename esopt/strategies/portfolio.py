"""A portfolio for some hundreds of dimensions: coordinates, local searches and CMA-ES; shares follow success."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, check_seed, child
from ..records import Evals, Info, Population
from .cmaes import CMAES
from .coordinate_search import CoordinateSearch, CoordinateSearchState
from .gradient_es import check_sigma, fit_sigma
from .multistart import Multistart, MultistartState
from .quasi_newton import QuasiNewton
from .restarts import BIPOP, Plan, Restarts, RestartState, RunState

_COORDINATES, _LOCAL, _CMA = 0, 1, 2
_NAMES = ("coordinates", "local", "cma")

_STALE = 50.0
"""Coordinates are left when they found nothing for as long as they took to get there, and this times d."""
_AFTERWARDS = 0.1
"""Share of coordinates once they were left."""
_LEADING, _TRAILING = 0.5, 0.15
"""Share of local searches while they have the best value, and otherwise."""
_ROUGH = 40.0
"""A first local search that found no way down after less than this times d says that f is rough."""
_ALIKE = 1e-3
"""Local searches ended alike if their ends differ by less than this share of what they gained."""
_BRIEF = 50.0
"""Evaluations over d of the first run of CMA-ES where local searches did not end alike."""


@dataclass(frozen=True)
class Opening(BIPOP):
    """:class:`BIPOP` with budgets by success, after a first large run of ``large`` times the default population."""

    weighted: bool = True
    large: float = 4.0

    def next(self, runs: RunState, uniforms: tuple[float, float]) -> Plan:
        """Return the large run after the first run, and BIPOP's choice after that."""
        if runs.runs == 0:
            return Plan(self.large, 1.0, False, 0)
        return super().next(runs, uniforms)


class _Arms(NamedTuple):
    coordinates: CoordinateSearch
    local: Multistart
    cma: Restarts


@dataclass(frozen=True, eq=False)
class PortfolioState:
    """State of :class:`Portfolio`: the best point, ``mean``, and the states of the three arms.

    ``turn`` is the arm that asks; ``used`` and ``best`` are the evaluations and lowest values of each, (3,);
    ``improved`` is how many evaluations had been used when ``value`` was found.
    """

    seed: int
    generation: int
    mean: Array
    value: float
    coordinates: CoordinateSearchState
    local: MultistartState
    cma: RestartState
    turn: int
    used: Array
    best: Array
    improved: int


@dataclass(frozen=True, eq=False)
class Portfolio:
    """The default of :func:`esopt.minimize` to d = 640: three searches that share the evaluations.

    :class:`CoordinateSearch` begins with a test whether f is a sum over coordinates, four evaluations where it is not;
    where it is, it goes on until it finds nothing more. Then come two local searches (:class:`Multistart`), only one
    if it soon finds no way down, then CMA-ES with restarts (:class:`Restarts`). Where local searches ended alike its
    first run has the default population, else a short first run is followed by a four times larger one. From then
    on local searches get half of the evaluations while they end differently and have the best value, 15 % otherwise.

    ``Info.choices`` says which arm asked ("arm") and what each has used and found. Deterministic functions only: the
    differences of local searches cannot see through noise.

    Parameters
    ----------
    sigma : initial standard deviation, a number or one per coordinate; a third of the distance to where the optimum
        may be.

    Notes
    -----
    O(n d^2) time for each generation, O(d^2) memory. It has no stop rules of its own: there is always another restart.

    Examples
    --------
    >>> import esopt
    >>> def rosenbrock(x): return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())
    >>> result = esopt.minimize(rosenbrock, [-1.2] * 5, strategy=esopt.Portfolio(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8) and result.evaluations < 1000
    True
    """

    keeps_values: ClassVar[bool] = True

    sigma: float | Array = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", check_sigma(self.sigma))

    def init(self, x0: Array, seed: int) -> PortfolioState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        start, seed = np.array(x0, np.float64), check_seed(seed)
        if np.ndim(fit_sigma(self.sigma, start.size)) == 2:
            raise ValueError("Portfolio() got a factor as sigma. Pass one number or one per coordinate.")
        arms = _arms(self)
        coordinates = arms.coordinates.init(start, child(seed, 0))
        local, cma = arms.local.init(start, child(seed, 1)), arms.cma.init(start, child(seed, 2))
        return PortfolioState(
            seed, 0, start, math.inf, coordinates, local, cma, _COORDINATES, np.zeros(3), np.full(3, math.inf), 0
        )

    def ask(self, state: PortfolioState) -> Population:
        """Return the population of the arm whose turn it is."""
        arm, inner = self._turn(state)
        population: Population = arm.ask(inner)
        return population

    def tell(self, state: PortfolioState, evals: Evals) -> tuple[PortfolioState, Info]:
        """Return the state after the update of the arm that asked, and whose turn is next.

        Raises
        ------
        EvaluationError  if all evaluations so far failed, a generation of several or 10 + d single ones; the state is
        as before. Later an arm whose whole generation fails tries elsewhere.
        """
        turn, values = state.turn, evals.values
        lost = bool(np.isnan(values).all())
        if lost and state.value == math.inf and (values.size > 1 or state.used.sum() >= 10 + state.mean.size):
            raise EvaluationError(
                f"all {values.size} evaluations of generation {state.generation} failed.\n"
                "Check the objective at es.mean, or start from a point and with a sigma where it can be evaluated."
            )
        arm, inner = self._turn(state)
        if lost and turn != _LOCAL:
            learned, info = _elsewhere(turn, inner), Info(state.generation, None, evals.failures)
        else:
            learned, info = arm.tell(inner, evals)
        used, best, low = state.used.copy(), state.best.copy(), float(np.fmin.reduce(values))
        used[turn] += values.size
        best[turn] = np.fmin(best[turn], low)
        arms: dict[str, Any] = {_NAMES[turn]: learned}
        after = replace(state, generation=state.generation + 1, used=used, best=best, **arms)
        if low < state.value:
            point = self.ask(state)[int(np.nanargmin(values))]
            after = replace(after, mean=point, value=low, improved=int(used.sum()))
        choices = {name: f"{used[k]:.0f} evaluations, best {best[k]:.6g}" for k, name in enumerate(_NAMES)}
        choices = {"arm": _NAMES[turn], **choices, **info.choices}
        return _allocate(after), replace(info, generation=state.generation, choices=choices)

    def inject(self, state: PortfolioState, rows: Array) -> PortfolioState:
        """Return the state in which CMA-ES is next and also evaluates ``rows`` (k, d), as :meth:`CMAES.inject`."""
        if not len(rows):
            return state
        state = _begin_cma(state) if state.used[_CMA] == 0.0 else state
        return replace(state, turn=_CMA, cma=_arms(self).cma.inject(state.cma, rows))

    def toward(self, state: PortfolioState, gradient: Array) -> Array:
        """Return the candidate from the best point against its ``gradient`` (d,), as far as :meth:`CMAES.toward`."""
        step: Array = _arms(self).cma.toward(state.cma, gradient) - state.cma.mean
        return state.mean + step

    def stop(self, state: PortfolioState) -> dict[str, float]:
        """Return no reason: there is always another restart."""
        return {}

    def _turn(self, state: PortfolioState) -> tuple[Any, Any]:
        """Return the strategy and the state of the arm that asks."""
        return _arms(self)[state.turn], (state.coordinates, state.local, state.cma)[state.turn]


@lru_cache(maxsize=64)
def _arms(portfolio: Portfolio) -> _Arms:
    sigma = portfolio.sigma
    return _Arms(CoordinateSearch(sigma), Multistart(QuasiNewton(sigma)), Restarts(CMAES(sigma), Opening()))


def _elsewhere(turn: int, inner: Any) -> Any:
    """Return the state of an arm whose whole generation failed: new candidates of CMA-ES, no more coordinates."""
    if turn == _CMA:
        run = replace(inner.inner, generation=inner.inner.generation + 1)
        return replace(inner, generation=inner.generation + 1, inner=run)
    return replace(inner, generation=inner.generation + 1, apart=math.inf)


def _allocate(state: PortfolioState) -> PortfolioState:
    """Return the state with the arm whose turn is next."""
    used, local, dim = state.used, state.local, state.mean.size
    additive = math.isnan(state.coordinates.apart)
    if additive and used[_COORDINATES] < 2.0 * state.improved + _STALE * dim:
        return replace(state, turn=_COORDINATES)
    # A line, or some generations of CMA-ES, are not worth an interruption.
    if state.turn == _LOCAL and not local.inner.turning:
        return state
    if state.turn == _CMA and state.cma.inner.generation % 5 != 0:
        return state
    rough = local.reason in ("line", "gradient", "failed") and local.length < _ROUGH * dim
    if local.runs == 0 or (local.runs == 1 and not rough):
        return replace(state, turn=_LOCAL)
    if used[_CMA] == 0.0:
        return _begin_cma(state)
    if additive and used[_COORDINATES] < _AFTERWARDS * used.sum():
        return replace(state, turn=_COORDINATES)
    # More searches of one valley, or of a rough slope before CMA-ES had its turn, are no use however low they got.
    leading = state.best[_LOCAL] < state.best[_CMA] and not _alike(local) and not (rough and used[_CMA] < 100.0 * dim)
    share = _LEADING if leading else _TRAILING
    return replace(state, turn=_LOCAL if used[_LOCAL] < share * (used[_LOCAL] + used[_CMA]) else _CMA)


def _begin_cma(state: PortfolioState) -> PortfolioState:
    """Return the state in which CMA-ES has its first turn: a short run, unless local searches ended alike."""
    runs = replace(state.cma.runs, cap=0 if _alike(state.local) else int(_BRIEF * state.mean.size))
    return replace(state, turn=_CMA, cma=replace(state.cma, runs=runs))


def _alike(local: MultistartState) -> bool:
    return local.runs > 1 and local.high - local.low <= _ALIKE * (local.worst - local.low)
