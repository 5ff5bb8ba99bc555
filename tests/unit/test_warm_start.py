"""Warm starts: the numbers of the paper's formula, and of the authors' own package."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt import CMAES, warm_start

MEAN = [0.014761882041310903, -0.39174391574275924]
COV = [[0.9728247060419654, 0.11719914772175598], [0.11719914772175598, 0.11902804492326935]]


def solutions(count: int = 40, dim: int = 3, seed: int = 3):
    points = 0.3 * esopt.Gaussian().noise(esopt.Key(seed), count, dim).rows().astype(np.float64) + 0.5
    return [(x, float(((x - 0.4) ** 2).sum())) for x in points]


def test_mean_and_covariance_of_the_mixture():
    pairs = solutions()
    start = warm_start(pairs)
    best = np.array([x for x, _ in sorted(pairs, key=lambda pair: pair[1])[:4]])

    np.testing.assert_allclose(start.mean, best.mean(axis=0), rtol=1e-14)
    expected = 0.01 * np.eye(3) + np.cov(best.T, bias=True)
    np.testing.assert_allclose(start.factor @ start.factor.T, expected, rtol=1e-12)


def test_figures_of_the_package_cmaes():
    """get_warm_start_mgd of cmaes 0.13.1 on ten given points, gamma = 0.4: mean, and sigma^2 times its covariance."""
    pairs = [(np.array([np.cos(i), np.sin(2.0 * i)]), float((i * 7) % 10)) for i in range(10)]
    start = warm_start(pairs, gamma=0.4, alpha=0.2)

    np.testing.assert_allclose(start.mean, MEAN, rtol=1e-12)
    np.testing.assert_allclose(start.factor @ start.factor.T, COV, rtol=1e-12)


def test_failures_are_left_out_and_one_solution_is_enough():
    start = warm_start([(np.zeros(2), np.nan), (np.ones(2), 1.0), (np.full(2, 9.0), np.inf)], alpha=0.5)

    np.testing.assert_array_equal(start.mean, np.ones(2))
    np.testing.assert_allclose(start.factor, 0.5 * np.eye(2))


def test_results_are_solutions():
    results = [esopt.minimize(lambda x: (x * x).sum(), np.full(3, 0.1 * i), evaluations=100) for i in (1, 2)]
    start = warm_start(results, gamma=1.0)

    np.testing.assert_allclose(start.mean, (results[0].x + results[1].x) / 2.0)


def test_the_search_begins_there():
    start = warm_start(solutions())
    state = CMAES(sigma=start.factor).init(start.mean, 1)

    np.testing.assert_allclose(state.cov, start.factor @ start.factor.T, rtol=1e-12)
    np.testing.assert_array_equal(state.mean, start.mean)


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([], {}, "no solutions"),
        ([(np.zeros(2), np.nan)], {}, "none with a finite value"),
        ([(np.zeros(2), 1.0), (np.zeros(3), 1.0)], {}, r"sizes \[2, 3\]"),
        ([(np.zeros(2), 1.0)], {"gamma": 1.5}, "gamma"),
        ([(np.zeros(2), 1.0)], {"gamma": 0.0}, "gamma"),
        ([(np.zeros(2), 1.0)], {"alpha": 0.0}, "alpha"),
    ],
)
def test_messages(pairs, options, message):
    with pytest.raises(ValueError, match=message):
        warm_start(pairs, **options)
