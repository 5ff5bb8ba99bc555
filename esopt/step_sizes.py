"""Rules for sigma: what the ranks of a generation say about the size of the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._kernels import cma
from .noise import Array
from .protocols import Move, State
from .schedules import check_nonnegative, check_positive


@dataclass(frozen=True)
class CSA:
    """Cumulative step-size adaptation: the length of the strategy's path against that of a random walk.

    Unbiased where values are noise, and the best of the rules while a small population learns a covariance. In a large
    one sigma shrinks more slowly than it could. It takes rows of noise to be uncorrelated: with samplers that balance
    their rows (:class:`esopt.Antithetic`, :class:`esopt.Sobol`, :class:`esopt.Halton`) the steps of the mean are
    shorter under random selection, and sigma shrinks.

    References
    ----------
    Hansen (2016), The CMA evolution strategy: a tutorial, arXiv:1604.00772, eqs. 43-44. The path, its rates and its
    damping are those of the strategy.

    Examples
    --------
    >>> import esopt
    >>> esopt.CMAES(step_size=esopt.CSA()).step_size
    CSA()
    """

    def init(self, dim: int) -> State:
        return ()

    def probes(self, mean: Array, sigma: float, state: State) -> Array:
        return np.empty((0, mean.size))

    def adapt(self, move: Move, state: State) -> tuple[float, State]:
        if move.cumulated is None:
            raise ValueError(
                "CSA() got a generation of a strategy without a path for sigma. Use TPA(), MSR() or PSR() with it."
            )
        return move.cumulated, state


@dataclass(frozen=True)
class TPAState:
    """State of :class:`TPA`: the averaged rank difference, and where to look, in units of sigma: (d,), or (0,)."""

    success: float
    direction: Array


@dataclass(frozen=True)
class TPA:
    """Two-point adaptation: two more evaluations, ahead of the mean along its last step and behind it.

    If the point ahead is better, the step was too short, and sigma grows. The points lie at the distance of noise,
    sqrt(d) in the metric of the search, and serve sigma alone. Unbiased where values are noise, whatever the sampler;
    for populations that are large compared with d, where two more evaluations do not count.

    Parameters
    ----------
    smoothing : weight of the newest rank difference.
    damping : of the logarithm of sigma; None for 0.7 + log d.
    exponent : of the rank difference, as a share of the population; below 1 small differences count for more.

    References
    ----------
    Hansen (2008), CMA-ES with two-point step-size adaptation, arXiv:0805.0231; Hansen, Atamna, Auger (2014), How to
    assess step-size adaptation mechanisms in randomised search, section 3 (there with exponent 1 and damping sqrt d).

    Examples
    --------
    >>> import esopt
    >>> def f(x): return float(x @ x)
    >>> tpa = esopt.CMAES(step_size=esopt.TPA(), n=100)
    >>> result = esopt.minimize(f, [1.0] * 10, strategy=tpa, target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8)
    True
    """

    smoothing: float = 0.3
    damping: float | None = None
    exponent: float = 0.5

    def __post_init__(self) -> None:
        _check(self.smoothing, self.damping)
        check_positive("exponent", self.exponent)

    def init(self, dim: int) -> TPAState:
        return TPAState(0.0, np.empty(0))

    def probes(self, mean: Array, sigma: float, state: State) -> Array:
        if not state.direction.size:
            return np.empty((0, mean.size))
        step = sigma * state.direction
        return np.stack([mean + step, mean - step])

    def adapt(self, move: Move, state: State) -> tuple[float, State]:
        length = math.sqrt(float(np.square(move.white).sum()))
        direction = move.shift * (math.sqrt(move.shift.size) / length) if length > 0.0 else np.empty(0)
        success = state.success
        if move.probes.size:
            values = _last(np.concatenate([move.values, move.probes]))
            ahead, behind = values[-2:]
            better = float(np.count_nonzero(values < behind) - np.count_nonzero(values < ahead)) / (values.size - 1)
            better = math.copysign(abs(better) ** self.exponent, better)
            success = (1.0 - self.smoothing) * success + self.smoothing * better
        damping = 0.7 + math.log(move.shift.size) if self.damping is None else self.damping
        return move.sigma * math.exp(success / damping), TPAState(success, direction)


@dataclass(frozen=True)
class MSR:
    """Median success rule: whether half of the generation is better than the best 30 % of the one before.

    Needs nothing but values: for any sampler and any metric. Where values are noise sigma shrinks, by a factor of
    about exp(-0.4 / damping) in a generation.

    Parameters
    ----------
    smoothing : weight of the newest success.
    damping : of the logarithm of sigma; None for 2 - 2 / d, at least 1.
    quantile : share of the earlier generation that is to be surpassed.

    References
    ----------
    Ait Elhara, Auger, Hansen (2013), A median success rule for non-elitist evolution strategies: study of feasibility,
    section 3.

    Examples
    --------
    >>> import esopt
    >>> def f(x): return float(x @ x)
    >>> msr = esopt.CMAES(step_size=esopt.MSR())
    >>> result = esopt.minimize(f, [1.0] * 10, strategy=msr, target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8)
    True
    """

    smoothing: float = 0.3
    damping: float | None = None
    quantile: float = 0.3

    def __post_init__(self) -> None:
        _check(self.smoothing, self.damping)
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile must be in (0, 1), got {self.quantile!r}. The paper takes 0.3.")

    def init(self, dim: int) -> float:
        return 0.0

    def probes(self, mean: Array, sigma: float, state: State) -> Array:
        return np.empty((0, mean.size))

    def adapt(self, move: Move, state: State) -> tuple[float, State]:
        success = state
        if _comparable(move):
            n, before, values = move.values.size, np.sort(_last(move.before)), _last(move.values)
            # Between two values where 0.3 n is no whole number. The best is number 0, as in the authors' code.
            place = min(self.quantile * n, n - 1.0)
            low, high = int(place), min(int(place) + 1, n - 1)
            share = place - low
            better = (1.0 - share) * np.count_nonzero(values < before[low])
            better += share * np.count_nonzero(values < before[high])
            success = _average(state, 2.0 / n * (float(better) - (n + 1.0) / 2.0), self.smoothing)
        damping = max(1.0, 2.0 - 2.0 / move.shift.size) if self.damping is None else self.damping
        return move.sigma * math.exp(success / damping), success


@dataclass(frozen=True)
class PSR:
    """Population success rule: the ranks of a generation among those of the one before, against a target.

    Needs nothing but values: for any sampler and any metric, and for strategies that keep no path for sigma. Where
    values are noise sigma shrinks, by a factor of exp(-target / damping) in a generation.

    Parameters
    ----------
    target : aimed share by which ranks improve, from -1 to 1.
    smoothing : weight of the newest success.
    damping : of the logarithm of sigma.
    parents : compare the rows that the mean is made of, by their weights, as :class:`RMES` does; else all.

    References
    ----------
    Loshchilov (2014), A computationally efficient limited memory CMA-ES for large scale optimization, section 3.4;
    with ``parents`` Li, Zhang (2018), A simple yet efficient evolution strategy for large-scale black-box
    optimization, section III.

    Examples
    --------
    >>> import esopt
    >>> def f(x): return float(x @ x)
    >>> psr = esopt.SepCMA(step_size=esopt.PSR())
    >>> result = esopt.minimize(f, [1.0] * 10, strategy=psr, target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8)
    True
    """

    target: float = 0.25
    smoothing: float = 0.3
    damping: float = 1.0
    parents: bool = False

    def __post_init__(self) -> None:
        _check(self.smoothing, self.damping)
        check_nonnegative("target", self.target)

    def init(self, dim: int) -> float:
        return 0.0

    def probes(self, mean: Array, sigma: float, state: State) -> Array:
        return np.empty((0, mean.size))

    def adapt(self, move: Move, state: State) -> tuple[float, State]:
        success = state
        if _comparable(move):
            before, values = move.before, move.values
            weights = np.full(values.size, 1.0 / values.size)
            if self.parents:
                half = values.size // 2
                before, values = before[cma.order(before)][:half], values[cma.order(values)][:half]
                weights = move.weights[:half]
            gained = float(weights @ (_ranks(before, values) - _ranks(values, before)))
            success = _average(state, gained / values.size - self.target, self.smoothing)
        return move.sigma * math.exp(success / self.damping), success


def _check(smoothing: float, damping: float | None) -> None:
    if not 0.0 < smoothing <= 1.0:
        raise ValueError(f"smoothing must be in (0, 1], got {smoothing!r}. Pass for example 0.3.")
    if damping is not None:
        check_positive("damping", damping)


def _average(success: float, newest: float, smoothing: float) -> float:
    return (1.0 - smoothing) * success + smoothing * newest


def _comparable(move: Move) -> bool:
    """Whether there was a generation before, of the same size."""
    return move.before.size == move.values.size and not bool(np.isnan(move.before).all())


def _last(values: Array) -> Array:
    """Return the values with failures last."""
    return np.asarray(np.where(np.isnan(values), math.inf, values))


def _ranks(values: Array, others: Array) -> Array:
    """Return the rank of every value among both, ties at their mean; failures are last."""
    own, both = _last(values), _last(others)
    pooled = np.sort(np.concatenate([own, both]))
    return np.asarray(0.5 * (np.searchsorted(pooled, own, "left") + np.searchsorted(pooled, own, "right") - 1))
