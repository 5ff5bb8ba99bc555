"""What the members of the CMA family share: weights, rates, stop rules."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, Noise
from ..protocols import Sampler
from ..records import Evals

REASONS = (
    "tolfun",
    "tolfunhist",
    "tolx",
    "tolup",
    "condition",
    "noeffectaxis",
    "noeffectcoord",
    "stagnation",
    "flat",
)
"""Names of the numbers that the kernel ``cma.reasons`` returns."""


class _Rates(NamedTuple):
    """c_m, c_sigma, d_sigma, c_c, c_1, c_mu and mu_eff, in the order that kernels read."""

    mean: float
    sigma: float
    damping: float
    path: float
    one: float
    mu: float
    mass: float


def population_size(n: int | None, dim: int, sampler: Sampler) -> int:
    """Return ``n``, or 4 + floor(3 ln d) rounded up to whole blocks of the sampler, at least two."""
    if n is not None:
        return int(n)
    return sampler.block * max(2, -(-(4 + int(3.0 * math.log(dim))) // sampler.block))


def check_size(n: int | None, sampler: Sampler) -> None:
    """Raise ValueError unless ``n`` is None or a multiple of the sampler's block, at least 2."""
    whole = isinstance(n, (int, np.integer)) and not isinstance(n, bool)
    if n is not None and not (whole and n >= 2 and n % sampler.block == 0):
        raise ValueError(
            f"n must be at least 2 and a multiple of {sampler.block} with the sampler {type(sampler).__name__}, got "
            f"n={n!r}. Pass for example n={-(-16 // sampler.block) * sampler.block}."
        )


@cache
def constants(dim: int, n: int, active: bool, separable: bool) -> tuple[Array, tuple[float, ...]]:
    """Return recombination weights (n,), best first, and learning rates, in a plain tuple for compiled code to cache.

    Hansen (2016), arXiv:1604.00772, table 1 (eqs. 49-58), with alpha_cov = 2. A separable covariance learns (d + 2) / 3
    times as fast: Ros and Hansen (2008), A simple modification in CMA-ES achieving linear time and space complexity.
    """
    raw = math.log((n + 1) / 2.0) - np.log(np.arange(1, n + 1))
    mu = n // 2
    best, worst = raw[:mu], raw[mu:]
    mass = float(best.sum() ** 2 / (best @ best))
    c_sigma = (mass + 2.0) / (dim + mass + 5.0)
    damping = 1.0 + 2.0 * max(0.0, math.sqrt((mass - 1.0) / (dim + 1.0)) - 1.0) + c_sigma
    c_c = (4.0 + mass / dim) / (dim + 4.0 + 2.0 * mass / dim)
    faster = (dim + 2.0) / 3.0 if separable else 1.0
    c_1 = min(1.0, faster * 2.0 / ((dim + 1.3) ** 2 + mass))
    c_mu = faster * 2.0 * (0.25 + mass + 1.0 / mass - 2.0) / ((dim + 2.0) ** 2 + mass)
    c_mu = min(1.0 - c_1, c_mu)
    weights = np.maximum(raw, 0.0) / best.sum()
    opposing = float(-worst.sum())
    if active and opposing > 0.0 and c_mu > 0.0:
        mass_worst = float(worst.sum() ** 2 / (worst @ worst))
        size = min(1.0 + c_1 / c_mu, 1.0 + 2.0 * mass_worst / (mass + 2.0), (1.0 - c_1 - c_mu) / (dim * c_mu))
        weights[mu:] = max(0.0, size) * worst / opposing
    weights[mu:] = np.minimum(weights[mu:], 0.0)
    weights.flags.writeable = False
    return weights, tuple(_Rates(1.0, c_sigma, damping, c_c, c_1, c_mu, mass))


def history_size(dim: int, n: int) -> int:
    """Return how many generations of best and median values are kept: 120 + 30 d / n."""
    return 120 + math.ceil(30.0 * dim / n)


def recent(dim: int, n: int) -> int:
    """Return how many generations the ranges of values look back: 10 + 30 d / n."""
    return 10 + math.ceil(30.0 * dim / n)


def triggered(numbers: Array) -> dict[str, float]:
    """Return the stop rules that hold, by name."""
    if np.isnan(numbers).all():
        return {}
    return {name: float(x) for name, x in zip(REASONS, numbers, strict=True) if x == x}


def check_values(evals: Evals, noise: Noise) -> Array:
    """Return the values of the noise rows.

    Raises
    ------
    EvaluationError  if all of them failed.
    """
    values = evals.values[: noise.n]
    if np.isnan(values).all():
        raise EvaluationError(
            f"all {values.size} evaluations of generation {noise.key.generation} failed.\n"
            "Check the objective at es.mean, or start from a point and with a sigma where it can be evaluated."
        )
    return values
