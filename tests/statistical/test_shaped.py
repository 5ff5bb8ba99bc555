"""Shaped estimates on a linear function: exact means and variances, whatever its slope (theory, section 1.4)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from esopt import CenteredRanks, Evals, Gaussian, Key, NoBaseline, Population, RecombinationWeights, Score, Standardize
from esopt.protocols import Shaping
from esopt.shaping import cma_weights, nes_weights

Array = NDArray[np.float64]

D, GENERATIONS, SIGMA = 20, 2000, 0.3


def order_statistics(n: int) -> Array:
    """E z_(k), the expected k-th smallest of n standard normals, (n,)."""

    def mean(k: int) -> float:
        density = stats.beta(k, n - k + 1).pdf
        return float(
            integrate.quad(lambda z: z * density(stats.norm.cdf(z)) * stats.norm.pdf(z), -9.0, 9.0, limit=200)[0]
        )

    return np.array([mean(k) for k in range(1, n + 1)])


def estimates(shaping: Shaping, n: int) -> tuple[Array, Array]:
    """sigma * estimate along the slope, (generations,), and across it, (generations, d - 1)."""
    slope = np.linspace(2.0, -3.0, D)
    basis, _ = np.linalg.qr(np.column_stack([slope, np.eye(D)[:, 1:]]))
    basis[:, 0] *= np.sign(basis[:, 0] @ slope)
    estimator, found = Score(NoBaseline()), np.empty((GENERATIONS, D))
    for generation in range(GENERATIONS):
        population = Population(np.ones(D), SIGMA, Gaussian().noise(Key(23, generation), n, D))
        values = population.rows() @ slope - 40.0
        evals = Evals(values, utilities=shaping.shape(values, population))
        found[generation] = estimator.estimate(population, evals, estimator.init(D))[0].mean
    local = SIGMA * found @ basis
    return local[:, 0], local[:, 1:]


def check(found: tuple[Array, Array], mean: float, variance: float | None, across: float) -> None:
    """Compare within 4.5 standard errors; those of variances come from the theory or from fourth moments."""
    along, rest = found
    error = along.std() / math.sqrt(GENERATIONS)
    assert abs(along.mean() - mean) < 4.5 * error
    assert abs(mean) > 45.0 * error
    if variance is not None:
        squares = np.square(along - along.mean())
        assert abs(squares.mean() - variance) < 4.5 * squares.std() / math.sqrt(GENERATIONS) < 0.2 * variance
    # Given the weights, which are a fixed set, the rows are normal across the slope.
    relative = math.sqrt(2.0 / rest.size)
    assert abs(np.square(rest).sum(axis=1).mean() / across - 1.0) < 4.5 * relative < 0.04
    assert np.abs(rest.mean(axis=0)).max() < 4.5 * math.sqrt(across / (D - 1) / GENERATIONS)


@pytest.mark.parametrize("n", [2, 9])
def test_centered_ranks(n: int) -> None:
    gap = 2.0 * math.sqrt(3.0) / math.pi + 1.0 / 3.0 - 4.0 / math.pi
    variance = (2.0 * (n - 2) * gap + 2.0 - 4.0 / math.pi) / (8.0 * n * (n - 1))

    check(
        estimates(CenteredRanks(), n),
        1.0 / (2.0 * math.sqrt(math.pi)),
        variance,
        (D - 1) * (n + 1) / (12.0 * n * (n - 1)),
    )


@pytest.mark.parametrize("n", [3, 10])
def test_standardised_values(n: int) -> None:
    mean = math.sqrt(2.0 / n) * math.gamma(n / 2) / math.gamma((n - 1) / 2)

    check(estimates(Standardize(), n), mean, (n - 1) / n - mean**2, (D - 1) / n)


@pytest.mark.parametrize("n", [4, 11])
@pytest.mark.parametrize("weights", [cma_weights, nes_weights], ids=["cma", "nes"])
def test_recombination(weights: Callable[[int], Array], n: int) -> None:
    """Minus sum_k w_k eps_(k), best first; across the slope its variance is sum w^2, 1 / mu_eff for CMA."""
    w = weights(n)

    check(estimates(RecombinationWeights(weights), n), -float(w @ order_statistics(n)), None, (D - 1) * float(w @ w))
