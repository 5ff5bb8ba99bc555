"""Values to utilities: what a strategy makes of the values before it averages. Lower stays better.

A shaping may change what is optimised (ranks do); a baseline may not. Under the rank-based ones failures rank last and
infinite values are legal; under the others a failed or infinite value is nan in the result, and its block is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._kernels import ranks
from .noise import Array
from .records import Population


def _finite_or_nan(values: Array) -> Array:
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


def _tame(values: Array) -> Array:
    """Return values (not all nan) times a power of two such that their squares neither overflow nor vanish."""
    largest = np.fmax.reduce(np.abs(values), axis=None)  # ignores nan
    if 1e-140 < largest < 1e140:
        return values
    return np.asarray(np.ldexp(values, -np.frexp(largest)[1]))


def _average_over_ties(values: Array, by_rank: Array) -> Array:
    """Return by_rank[rank of each value], (n,), averaged over equal values; nan counts as the largest value."""
    out = np.empty(values.size)
    ranks.average_over_ties(values, by_rank, out)
    return out


@dataclass(frozen=True)
class Raw:
    """The values themselves: the strategy follows the gradient of the smoothed objective."""

    @property
    def raw(self) -> bool:
        return True

    @property
    def ranks(self) -> bool:
        return False

    def shape(self, values: Array, population: Population) -> Array:
        """Return the values, nan where they are not finite."""
        return _finite_or_nan(values)


@dataclass(frozen=True)
class Standardize:
    """(value - mean) / standard deviation over the usable values (with 1/n): the gradient of J over sd(f)."""

    @property
    def raw(self) -> bool:
        return False

    @property
    def ranks(self) -> bool:
        return False

    def shape(self, values: Array, population: Population) -> Array:
        """Return z-scores; zeros where all values are equal."""
        kept = _finite_or_nan(values)
        if np.isnan(kept).all():
            return kept
        kept = _tame(kept)
        centered = kept - np.nanmean(kept)
        deviation = np.sqrt(np.nanmean(centered * centered))
        return centered / deviation if deviation > 0.0 else centered


@dataclass(frozen=True)
class CenteredRanks:
    """Ranks spread evenly over [-1/2, 1/2]; equal values share the average.

    On a linear f the expected estimate is a / (2 sqrt(pi) sigma |a|) for every n.

    References
    ----------
    Salimans et al. (2017), section 2.1 (fitness shaping); Wierstra et al. (2014), section 3.1.
    """

    @property
    def raw(self) -> bool:
        return False

    @property
    def ranks(self) -> bool:
        return True

    def shape(self, values: Array, population: Population) -> Array:
        """Return centred ranks, (n,)."""
        if values.size == 1:
            return np.zeros(1)
        return _average_over_ties(values, np.arange(values.size) / (values.size - 1.0) - 0.5)


@dataclass(frozen=True)
class TopFraction:
    """Keep the best ``fraction`` of the blocks by their best value, and divide by the deviation of what is kept.

    With antithetic pairs this is the ARS update: utilities (v - mean) n / (2 b s) for the 2b kept values v of standard
    deviation s, else 0.

    References
    ----------
    Mania, Guy, Recht (2018), Simple random search provides a competitive approach to reinforcement learning, algorithm
    2.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"fraction must be in (0, 1], got {self.fraction}. Pass for example 0.5.")

    @property
    def raw(self) -> bool:
        return False

    @property
    def ranks(self) -> bool:
        return False

    def shape(self, values: Array, population: Population) -> Array:
        """Return utilities: zero for rows that are not kept, nan for failed ones."""
        kept = _finite_or_nan(values)
        block = population.noise.block
        best = kept.reshape(-1, block).min(axis=1)
        usable = int(np.isfinite(best).sum())
        if usable == 0:
            return kept
        keep = max(1, round(self.fraction * usable))
        chosen = np.argsort(best, kind="stable")[:keep]
        utilities = np.zeros((best.size, block))
        utilities[np.isnan(best)] = np.nan
        top = _tame(kept.reshape(-1, block)[chosen])
        top = top - top.mean()
        spread = math.sqrt(np.square(top).mean())
        if spread > 0.0:
            utilities[chosen] = top * (usable / (keep * spread))
        return utilities.reshape(-1)


def nes_weights(n: int) -> Array:
    """Return u_k = max(0, log(n/2 + 1) - log k) / sum - 1/n, best first, (n,) (Wierstra et al. 2014, section 3.1)."""
    positive = np.maximum(0.0, np.log(n / 2 + 1.0) - np.log(np.arange(1, n + 1)))
    return np.asarray(positive / positive.sum() - 1.0 / n)


def cma_weights(n: int) -> Array:
    """Return w_k = log((n + 1)/2) - log k over the best half, of sum 1, else 0, (n,) (Hansen 2016, eq. 49)."""
    if n == 1:
        return np.ones(1)
    positive = np.maximum(0.0, np.log((n + 1) / 2) - np.log(np.arange(1, n + 1)))
    positive[n // 2 :] = 0.0
    return np.asarray(positive / positive.sum())


@dataclass(frozen=True)
class RecombinationWeights:
    """Rank weights of NES or CMA: the average of utilities * eps is minus sum_k w_k eps_(k), best first.

    Equal values share their weight. Failed rows have the last one, and what the others have beyond that is as if there
    were only those: failures are avoided, and leave the selection among the rest as sharp as it is without them.

    Parameters
    ----------
    weights : function of n that returns (n,) weights, best first: :func:`nes_weights` or :func:`cma_weights`.
    """

    weights: Callable[[int], Array] = nes_weights

    @property
    def raw(self) -> bool:
        return False

    @property
    def ranks(self) -> bool:
        return True

    def shape(self, values: Array, population: Population) -> Array:
        """Return -n w_rank, (n,)."""
        failed = int(np.isnan(values).sum())
        return _average_over_ties(values, self.by_rank(values.size, failed))

    def by_rank(self, n: int, failed: int = 0) -> Array:
        """Return the utilities of n rows by rank, (n,), the last ``failed`` of which have no value."""
        utilities = np.asarray(self.weights(n) * -float(n))
        if not failed or n - failed < 2:
            return utilities
        rest = np.asarray(self.weights(n - failed))
        utilities[: n - failed] = (rest - rest[-1]) * -float(n) + utilities[-1]
        utilities[n - failed :] = utilities[-1]
        return utilities
