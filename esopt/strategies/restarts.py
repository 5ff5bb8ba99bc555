"""Restarts of any population strategy: IPOP, BIPOP, NBIPOP."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from .._parts import check_injectable, check_instance
from ..noise import Array, check_seed, child
from ..protocols import Strategy
from ..records import Evals, Goal, Info, Lap, Population
from .cmaes import CMAES


@dataclass(frozen=True, eq=False)
class RunState:
    """What restart policies know; evaluations and best values are those of [large, small] runs, the first is large.

    ``population`` and ``spread`` are n and sigma of the current run over those of the first, ``factor`` the population
    of the latest large run, ``last_large`` its evaluations; ``used`` are the evaluations of the current run.
    """

    runs: int
    small: bool
    population: float
    spread: float
    factor: float
    cap: int
    used: int
    last_large: int
    evaluations: Array
    best: Array


class Plan(NamedTuple):
    """The next run: n and sigma over those of the first run, its kind, and its evaluations at most (0 for any)."""

    population: float
    sigma: float
    small: bool
    cap: int


@runtime_checkable
class Policy(Protocol):
    """When one run has ended: what the next one is like."""

    def next(self, runs: RunState, uniforms: tuple[float, float]) -> Plan: ...


@dataclass(frozen=True)
class IPOP:
    """Increase the population by ``factor`` with every restart.

    References
    ----------
    Auger and Hansen (2005), A restart CMA evolution strategy with increasing population size.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.factor < math.inf:
            raise ValueError(f"factor must be at least 1, got {self.factor}. The default is 2.")

    def next(self, runs: RunState, uniforms: tuple[float, float]) -> Plan:
        return Plan(runs.factor * self.factor, 1.0, False, 0)


@dataclass(frozen=True)
class BIPOP:
    """Alternate between large runs, each twice as large as the last, and small runs of random size and sigma.

    The kind that used fewer evaluations goes next; with ``weighted`` the kind that found the better value gets twice
    the budget of the other (NBIPOP). A small run ends after half the evaluations of the last large run.

    References
    ----------
    Hansen (2009), Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed; Loshchilov, Schoenauer, Sebag
    (2012), Alternative restart strategies for CMA-ES.
    """

    weighted: bool = False

    def next(self, runs: RunState, uniforms: tuple[float, float]) -> Plan:
        large, small = float(runs.evaluations[0]), float(runs.evaluations[1])
        share = 1.0
        if self.weighted and runs.best[0] != runs.best[1]:
            share = 2.0 if runs.best[1] < runs.best[0] else 0.5
        if runs.factor > 1.0 and small < share * large:
            population = max(1.0, (0.5 * runs.factor) ** (uniforms[0] ** 2))
            return Plan(population, 10.0 ** (-2.0 * uniforms[1]), True, max(1, runs.last_large // 2))
        return Plan(2.0 * runs.factor, 1.0, False, 0)


@dataclass(frozen=True, eq=False)
class RestartState:
    """State of :class:`Restarts`: that of the current run, and what the policy knows."""

    seed: int
    generation: int
    x0: Array
    n: int
    inner: Any
    runs: RunState

    @property
    def mean(self) -> Array:
        """Mean of the current run."""
        return cast(Array, self.inner.mean)


@dataclass(frozen=True, eq=False)
class Restarts:
    """Begin a new run of ``inner`` whenever its stop rules end one: for functions with many optima.

    Every run has a child seed, so that no two of them share noise. The best point of all runs is the result.

    Parameters
    ----------
    inner : a strategy with the settings ``n`` and ``sigma``, for example :class:`CMAES`.
    policy : :class:`IPOP`, :class:`BIPOP`, or one of your own.
    start : ``start(x0, uniforms)`` returns where a new run begins, from x0 (d,) and d numbers in [0, 1); None for x0.
    limit : restarts at most; None for no limit.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> def rastrigin(x): return 10.0 * len(x) + float((x * x - 10.0 * np.cos(2.0 * np.pi * x)).sum())
    >>> bipop = esopt.Restarts(esopt.CMAES(sigma=2.0), esopt.BIPOP())
    >>> found = esopt.minimize(rastrigin, [3.0] * 5, strategy=bipop, target=1e-8, seed=1, evaluations=100_000)
    >>> bool(found.value <= 1e-8)
    True
    """

    inner: Any = field(default_factory=CMAES)
    policy: Policy = field(default_factory=BIPOP)
    start: Callable[[Array, Array], Array] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        check_instance("policy", self.policy, Policy, "BIPOP()")
        missing = [name for name in ("n", "sigma") if not hasattr(self.inner, name)]
        if missing:
            raise TypeError(f"inner must have the settings n and sigma, {self.inner!r} lacks {', '.join(missing)}.")

    @property
    def asynchronous(self) -> bool:
        """Whether ``inner`` is."""
        return bool(getattr(self.inner, "asynchronous", False))

    def init(self, x0: Array, seed: int) -> RestartState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        inner = self.inner.init(x0, child(check_seed(seed), 0))
        n = self.inner.ask(inner).n
        runs = RunState(0, False, 1.0, 1.0, 1.0, 0, 0, 0, np.zeros(2), np.full(2, np.inf))
        return RestartState(seed, 0, np.array(x0, np.float64), n, inner, runs)

    def ask(self, state: RestartState) -> Population:
        """Return this generation's population of the current run."""
        return cast(Population, self._strategy(state).ask(state.inner))

    def tell(self, state: RestartState, evals: Evals) -> tuple[RestartState, Info]:
        """Return the state after the update; at the end of a run, that of the next one."""
        inner, info = self._strategy(state).tell(state.inner, evals)
        values = evals.values[~np.isnan(evals.values)]
        news = evals.values.size - (0 if evals.arrivals is None else evals.arrivals.again)
        after, note = self._follow(state, inner, 1, news, float(values.min(initial=np.inf)))
        if note:
            info = replace(info, choices={**info.choices, "restart": note})
        return after, replace(info, generation=state.generation)

    def run(self, state: RestartState, address: Any, goal: Goal) -> tuple[RestartState, Lap]:
        """Return the state after generations of the current run in compiled code, as :meth:`CMAES.run`."""
        strategy, runs = self._strategy(state), state.runs
        if not hasattr(strategy, "run"):
            return state, Lap(0, 0, state.mean, math.inf, np.empty(0), 0, 0)
        if runs.cap:
            n = len(strategy.ask(state.inner))
            goal = goal._replace(generations=min(goal.generations, -((runs.used - runs.cap) // n)))
        inner, lap = strategy.run(state.inner, address, goal)
        if not lap.generations:
            return state, lap
        return self._follow(state, inner, lap.generations, lap.evaluations, lap.value)[0], lap

    def inject(self, state: RestartState, rows: Array) -> RestartState:
        """Return the state whose current run also evaluates ``rows`` (k, d), as :meth:`CMAES.inject`."""
        strategy = self._strategy(state)
        check_injectable(strategy)
        return replace(state, inner=strategy.inject(state.inner, rows))

    def toward(self, state: RestartState, gradient: Array) -> Array:
        """Return the candidate against a ``gradient`` (d,) in the metric of the current run: :meth:`CMAES.toward`."""
        strategy = self._strategy(state)
        check_injectable(strategy)
        return cast(Array, strategy.toward(state.inner, gradient))

    def stop(self, state: RestartState) -> dict[str, float]:
        """Return the reasons of the last run once ``limit`` restarts were made; empty before."""
        if self.limit is None or state.runs.runs < self.limit:
            return {}
        return cast(dict[str, float], self._strategy(state).stop(state.inner))

    def _follow(
        self, state: RestartState, inner: Any, generations: int, evaluations: int, least: float
    ) -> tuple[RestartState, str]:
        """Return the state after generations that led to ``inner``, and a note if a new run begins."""
        runs, kind = state.runs, int(state.runs.small)
        used, best = runs.evaluations.copy(), runs.best.copy()
        used[kind] += evaluations
        best[kind] = min(best[kind], least)
        runs = replace(runs, used=runs.used + evaluations, evaluations=used, best=best)
        after = RestartState(state.seed, state.generation + generations, state.x0, state.n, inner, runs)
        reasons = self._strategy(state).stop(inner)
        if not reasons and 0 < runs.cap <= runs.used:
            reasons = {"small run": float(runs.used)}
        if not reasons or (self.limit is not None and runs.runs >= self.limit):
            return after, ""
        after = self._restart(after)
        return after, f"run {after.runs.runs} with n = {self.ask(after).n}, after {', '.join(reasons)}"

    def _strategy(self, state: RestartState) -> Any:
        runs = state.runs
        return self.inner if runs.runs == 0 else _sized(self.inner, self._size(runs, state.n), runs.spread)

    def _size(self, runs: RunState, n: int) -> int:
        block = getattr(getattr(self.inner, "sampler", None), "block", 1)
        return int(max(1, round(n * runs.population / block))) * block

    def _restart(self, state: RestartState) -> RestartState:
        runs = state.runs
        number, last_large = runs.runs + 1, runs.last_large if runs.small else runs.used
        seed = child(state.seed, number)
        uniforms = (child(seed, 0) / 2.0**64, child(seed, 1) / 2.0**64)
        plan = self.policy.next(replace(runs, last_large=last_large), uniforms)
        x0 = state.x0
        if self.start is not None:
            x0 = np.asarray(
                self.start(x0, np.array([child(seed, 2 + j) / 2.0**64 for j in range(x0.size)])), np.float64
            )
        factor = runs.factor if plan.small else plan.population
        ahead = RunState(
            number,
            plan.small,
            plan.population,
            plan.sigma,
            factor,
            plan.cap,
            0,
            last_large,
            runs.evaluations,
            runs.best,
        )
        after = replace(state, runs=ahead)
        return replace(after, inner=self._strategy(after).init(x0, seed))


@lru_cache(maxsize=16)
def _sized(inner: Any, n: int, spread: float) -> Any:
    """Return ``inner`` with population ``n`` and sigma times ``spread``; wrappers have a method for that."""
    if hasattr(inner, "resized"):
        return inner.resized(n, spread)
    return replace(inner, n=n, sigma=inner.sigma * spread)
