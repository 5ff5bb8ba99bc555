"""Constraints around any strategy: it minimises an augmented Lagrangian, whose multipliers follow what is found.

Atamna, Auger, Hansen (2017), Linearly convergent evolution strategies via augmented Lagrangian constraint handling;
Dufosse, Hansen (2021), Augmented Lagrangian, penalty techniques and surrogate modeling for constrained optimization
with CMA-ES.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .._lagrangian import Terms, adapt, begin, gather, penalty, violations
from .._parts import check_instance
from ..noise import Array
from ..protocols import Strategy
from ..records import Evals, Info, Population
from ._layers import keeps_values, layers, name_layers
from .cmaes import CMAES
from .restarts import Restarts, RestartState


@dataclass(frozen=True, eq=False)
class LagrangianState:
    """State of :class:`AugmentedLagrangian`: that of the inner strategy, multipliers and penalty coefficients.

    ``multipliers`` and ``penalties`` (m + p,) are those of the constraints, then of the equalities; empty before the
    first generation, a penalty nan until its constraint matters. ``shift`` is what changes of both have added to the
    Lagrangian so far. ``value`` and ``violation`` are those of the best candidate, inf before there is one, and
    ``found`` (m + p,) are the multipliers that it was found with. ``equal`` (m + p,) says which are of equalities;
    empty before the first generation.
    """

    inner: Any
    multipliers: Array
    penalties: Array
    shift: float
    value: float
    violation: float
    found: Array
    equal: NDArray[np.bool_]

    @property
    def generation(self) -> int:
        """Generations told."""
        return int(self.inner.generation)

    @property
    def mean(self) -> Array:
        """Mean of the search distribution, (d,)."""
        return cast(Array, self.inner.mean)


@dataclass(frozen=True, eq=False)
class AugmentedLagrangian:
    """Any strategy under constraints g(x) <= 0 and h(x) = 0. ``constraints=`` of :func:`esopt.minimize` makes one.

    The inner strategy minimises, with multipliers l and penalty coefficients r,

        L(x) = f(x) + sum_j l_j g_j(x) + r_j g_j(x)^2 / 2,    but -l_j^2 / (2 r_j) where r_j g_j(x) < -l_j,

    and the same without the exception for h. After each generation l_j moves by r_j g_j(m) / (2 sqrt(d)), m being the
    weighted mean of the better half; those of g stay >= 0. They converge to the Lagrange multipliers of f. r_j follows
    the share that its term has in the spread of L, and grows where the search has come to rest away from g_j = 0:
    units of f and of each constraint do not matter.

    Parameters
    ----------
    inner : a strategy that samples several candidates and learns from comparing them; restarts go inside, and a new
        run begins with new multipliers. :class:`Portfolio`, :class:`QuasiNewton` and others that compare values of
        different generations are refused, and so are those that need gradients.
    tolerance : how far |h| may be from 0 in a candidate that counts as feasible; a g must be <= 0.

    Notes
    -----
    Best is the feasible candidate with the least value, before there is one the candidate with the least violation, the
    sum of g > 0 and |h| > tolerance. A candidate fails if its value or one of its constraints is nan. Bounds and
    integers go inside, which ``bounds=`` and ``integer=`` of :class:`esopt.Optimizer` see to. Changes of l and r do not
    shift the values that ``inner`` sees: the median of a generation is kept. With a noisy f
    only the mean is usable: the best candidate is a lucky draw, and multipliers and penalties follow the noise.

    The penalty coefficients are this library's own rule: those of the papers change by constant factors, after tests on
    one candidate, and their start depends on units.

    References
    ----------
    Atamna, Auger, Hansen (2017), FOGA, hal-01455379; Dufosse, Hansen (2021), GECCO, hal-03196365.

    Examples
    --------
    >>> import esopt
    >>> es = esopt.Optimizer(esopt.AugmentedLagrangian(esopt.CMAES()), [2.0, 2.0, 2.0], seed=1, evaluations=2000)
    >>> while not es.stop():  # the least x.x where x[0] + x[1] >= 1
    ...     X = es.ask()
    ...     info = es.tell([x @ x for x in X], constraints=[[1.0 - x[0] - x[1]] for x in X])
    >>> es.result.x.round(3), es.result.multipliers.round(3), es.result.feasible
    (array([0.5, 0.5, 0. ]), array([1.]), True)
    """

    inner: Any = field(default_factory=lambda: Restarts(CMAES()))
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        if isinstance(self.tolerance, bool) or not (
            isinstance(self.tolerance, Real) and 0 <= self.tolerance < math.inf
        ):
            raise ValueError(f"tolerance must be a number >= 0, got {self.tolerance!r}. Pass for example 1e-6.")

    def init(self, x0: Array, seed: int) -> LagrangianState:
        """Return the state before the first generation, around ``x0`` (d,), feasible or not.

        Raises
        ------
        ValueError  for an inner strategy that this does not work for.
        """
        inner = self.inner.init(x0, seed)
        population = self.inner.ask(inner)
        name = name_layers(self.inner)
        if population.needs != {"values"}:
            needs = ", ".join(sorted(population.needs - {"values"}))
            raise ValueError(
                f"{name} needs {needs}, and the Lagrangian has none. Use a strategy that needs values only, "
                "such as CMAES(), and leave grad out."
            )
        kept = keeps_values(self.inner) or any(hasattr(state, "value") for state in layers(inner))
        if population.n < 2 or kept:
            raise ValueError(
                f"{name} compares values of different generations, between which the Lagrangian changes. "
                "Use a strategy that samples several candidates, such as CMAES(), Restarts() or snes()."
            )
        return LagrangianState(inner, np.empty(0), np.empty(0), 0.0, math.inf, math.inf, np.empty(0), np.empty(0, bool))

    def ask(self, state: LagrangianState) -> Population:
        """Return the population of ``inner``, whose constraints are needed too."""
        population: Population = self.inner.ask(state.inner)
        return population.needing("constraints")

    def tell(self, state: LagrangianState, evals: Evals) -> tuple[LagrangianState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        ValueError  if no constraints were told, or others than before.
        EvaluationError  as ``inner`` does; a candidate without all of its constraints has no value.
        """
        g, equal = gather(evals, state.equal)
        values, dim = evals.values, state.mean.size
        good = np.isfinite(values) & np.isfinite(g).all(axis=1)
        terms = Terms(state.multipliers, state.penalties, equal)
        if not terms.multipliers.size:
            terms = Terms(np.zeros(equal.size), np.full(equal.size, math.nan), equal)
        terms = begin(terms, values[good], g[good], dim)
        told = terms.multipliers
        merits = values + penalty(terms, g)
        inside = replace(evals, values=merits - state.shift, constraints=None, equalities=None)
        inner, info = self.inner.tell(state.inner, inside)
        shift = state.shift
        if _runs(inner) > _runs(state.inner):
            terms, shift = Terms(np.empty(0), np.empty(0), equal), 0.0
        elif int(good.sum()) > 1:
            terms = adapt(terms, merits[good], g[good], dim)
            shift += float(np.median(values[good] + penalty(terms, g[good]) - merits[good]))
        # -inf is the best there is, unless the inner strategy counts infinite values as failures.
        usable = np.isfinite(values) if "infinite" in info.failures else values < math.inf
        away = np.where(usable, violations(evals, self.tolerance), math.nan)
        best, value, violation = _best(state, values, away)
        found = state.found if best < 0 else told
        if not good.any():  # the number of constraints may not be known
            terms, equal = Terms(state.multipliers, state.penalties, state.equal), state.equal
        after = LagrangianState(inner, terms.multipliers, terms.penalties, shift, value, violation, found, equal)
        scalars: Mapping[str, float] = {
            **info.scalars,
            "feasible": float(np.mean(away == 0.0)),
            "violation": float(np.fmin.reduce(away)),
            "multiplier": float(np.abs(told).max()),
        }
        return after, replace(info, scalars=scalars, best=best)

    def stop(self, state: LagrangianState) -> dict[str, float]:
        """Return the reasons of ``inner``."""
        return cast(dict[str, float], self.inner.stop(state.inner))


def _runs(inner: Any) -> int:
    """Return how many restarts there were, also of restarts inside bounds and other wrappers."""
    return sum(state.runs.runs for state in layers(inner) if isinstance(state, RestartState))


def _best(state: LagrangianState, values: Array, away: Array) -> tuple[int, float, float]:
    """Return the row that is better than the best so far, or -1, and the best value and violation after it."""
    rows = np.flatnonzero(np.isfinite(away))
    if rows.size:
        row = int(rows[np.lexsort((values[rows], away[rows]))[0]])
        value, violation = float(values[row]), float(away[row])
        if (violation, value) < (state.violation, state.value):
            return row, value, violation
    return -1, state.value, state.violation
