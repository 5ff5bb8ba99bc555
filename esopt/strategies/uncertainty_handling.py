"""Uncertainty handling: a few candidates are evaluated again, and the change of their ranks says what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, cast

import numpy as np

from .._parts import check_instance
from .._repeated import average, mean_over, repeat
from ..noise import Array
from ..protocols import State, Strategy
from ..records import Evals, Info, Population
from .averaged import check_share
from .cmaes import CMAES

_TAG = "again"
# Section IV of the paper: theta, alpha_t, and the smallest share of rows evaluated again.
_THETA, _ALPHA, _SHARE = 0.2, 1.5, 0.1


@dataclass(frozen=True, eq=False)
class UncertaintyState:
    """State of :class:`UncertaintyHandling`: the inner one, evaluations for each candidate, and the last measure."""

    inner: State
    times: float
    uncertainty: float

    @property
    def generation(self) -> int:
        """Number of generations told."""
        return int(self.inner.generation)

    @property
    def mean(self) -> Array:
        """Mean of the search distribution, (d,)."""
        return cast(Array, self.inner.mean)


@dataclass(frozen=True, eq=False)
class UncertaintyHandling:
    """UH-CMA-ES: as many evaluations of each candidate as the ranks need, then a larger sigma.

    In every generation a tenth of the candidates, at least two, is evaluated again. Where their ranks change by more
    than a fifth of what chance alone would do, every candidate gets 1.5 times as many evaluations in the next
    generation, and once that reaches ``limit``, sigma grows instead by the factor 1 + 2 / (d + 10); where they change
    by less, there are fewer evaluations again. Ranks are those of both evaluations together.

    Parameters
    ----------
    inner : a rank-based strategy with ``sigma`` in its state, such as :class:`CMAES`.
    limit : evaluations of each candidate at most; with 1 only sigma grows.
    memory : weight of the earlier measures of uncertainty, in [0, 1); the paper has 0.

    Notes
    -----
    The candidates that are evaluated again are the first of the population, and not displaced as in the paper: a
    deterministic f looks certain, however rugged. Values reach ``inner`` in the order of their rank sums.

    References
    ----------
    Hansen, Niederberger, Guzzella, Koumoutsakos (2009), A method for handling uncertainty in evolutionary optimization
    with an application to feedback control of combustion, IEEE Transactions on Evolutionary Computation 13,
    section IV.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> rng = np.random.default_rng(1)
    >>> def noisy(x): return float(x @ x) * (1.0 + 0.5 * rng.standard_normal())
    >>> uh = esopt.UncertaintyHandling(esopt.CMAES(), limit=20)
    >>> result = esopt.minimize(noisy, [1.0] * 5, strategy=uh, noisy=True, evaluations=10_000, seed=1)
    >>> bool(result.x @ result.x < 1e-6)
    True
    """

    inner: Any = field(default_factory=CMAES)
    limit: float = 100.0
    memory: float = 0.0

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        check_share("UncertaintyHandling", self.inner)
        if isinstance(self.limit, bool) or not (isinstance(self.limit, Real) and 1.0 <= self.limit < math.inf):
            raise ValueError(f"limit must be a number of evaluations, got {self.limit!r}. Pass for example limit=100.")
        if not (isinstance(self.memory, Real) and 0.0 <= self.memory < 1.0):
            raise ValueError(f"memory must be in [0, 1), got {self.memory!r}. Pass for example memory=0.0.")

    def init(self, x0: Array, seed: int) -> UncertaintyState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        inner = self.inner.init(x0, seed)
        if not isinstance(getattr(inner, "sigma", None), float):
            raise TypeError(
                f"inner must have a number sigma in its state, {self.inner!r} has none. Pass for example CMAES()."
            )
        return UncertaintyState(inner, 1.0, 0.0)

    def ask(self, state: UncertaintyState) -> Population:
        """Return the population of ``inner``, every row as often as needed, and its first rows as often again."""
        population = self.inner.ask(state.inner)
        times, again = _whole(state.times), self._again(state, population)
        rows = np.tile(population.rows(0, again), (times, 1))
        return repeat(population, times).with_extra(_TAG, rows)

    def tell(self, state: UncertaintyState, evals: Evals) -> tuple[UncertaintyState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        population = self.inner.ask(state.inner)
        times, again = _whole(state.times), self._again(state, population)
        cut = len(population) * times
        first, noise = average(_cut(evals, cut), population, times)
        values = first.values.copy()
        old, new = values[: population.n], values[: population.n].copy()
        new[:again] = mean_over(evals.values[cut:].reshape(times, again))
        measure, values[: population.n] = _compare(old, new, again)
        inner, info = self.inner.tell(state.inner, replace(first, values=values))
        uncertainty = self.memory * state.uncertainty + (1.0 - self.memory) * measure
        if uncertainty <= 0.0:
            after = max(1.0, state.times / _ALPHA)
        else:
            after = min(self.limit, state.times * _ALPHA)
            if state.times >= self.limit:
                inner = replace(inner, sigma=inner.sigma * (1.0 + 2.0 / (population.dim + 10.0)))
        scalars = {**info.scalars, "times": float(times), "uncertainty": uncertainty}
        if not math.isnan(noise):
            scalars["noise"] = noise
        return UncertaintyState(inner, after, uncertainty), replace(info, scalars=scalars)

    def stop(self, state: UncertaintyState) -> dict[str, float]:
        """Return the reasons of ``inner``."""
        return cast(dict[str, float], self.inner.stop(state.inner))

    def _again(self, state: UncertaintyState, population: Population) -> int:
        """Return how many rows are evaluated again: max(2, n / 10) on average over generations."""
        share = max(2.0, _SHARE * population.n)
        return min(population.n, int((state.generation + 1) * share) - int(state.generation * share))


def _whole(times: float) -> int:
    return int(times + 0.5)


def _cut(evals: Evals, stop: int) -> Evals:
    """Return the first ``stop`` evaluations, with the costs of all."""
    grads = None if evals.grads is None else evals.grads[:stop]
    hessians = None if evals.hessians is None else evals.hessians[:stop]
    return replace(evals, values=evals.values[:stop], grads=grads, hessians=hessians)


def _compare(old: Array, new: Array, again: int) -> tuple[float, Array]:
    """Return the measure of uncertainty, and values (n,) in the order of the rank sums.

    ``old`` and ``new`` (n,) differ in the first ``again`` rows at most.
    """
    n = old.size
    # Interleaved, so that two equal values of a row stay neighbours among ties.
    pairs = np.where(np.isnan(both := np.stack([old, new], axis=1)), np.inf, both)
    ranks = np.empty(2 * n)
    ranks[np.argsort(pairs.ravel(), kind="stable")] = np.arange(1.0, 2 * n + 1)
    r_old, r_new = ranks.reshape(n, 2).T
    change = np.abs(r_new - r_old) - 1.0
    others = np.arange(1.0, 2 * n)
    limits = [
        np.percentile(np.abs(others - (r - (r > s))), 50.0 * _THETA)
        for i in range(again)
        for r, s in ((r_new[i], r_old[i]), (r_old[i], r_new[i]))
    ]
    measure = float((2.0 * change[:again].sum() - np.sum(limits)) / again)
    averages = mean_over(both.T)
    tie = np.full(n, change[:again].mean())
    tie[:again] = change[:again]
    order = np.lexsort((averages, tie, r_old + r_new))
    order = order[~np.isnan(averages[order])]
    values = np.full(n, np.nan)
    values[order] = np.sort(averages[order])
    return measure, values
