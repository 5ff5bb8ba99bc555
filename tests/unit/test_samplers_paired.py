"""Paired(): when pairs are orthogonal, and what failures cost then."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt import Antithetic, Evals, Gaussian, Key, Orthogonal, Paired, Population, Score

AT = Key(seed=3, generation=2)


@pytest.mark.parametrize(
    ("n", "dim", "block"),
    [
        (200, 100, 100),  # k = 50, two blocks
        (202, 100, 2),  # 101 pairs are a prime number
        (400, 100, 200),  # k = 100: the whole basis, twice
        (80, 100, 2),  # k = 20 saves less than a fifth
        (88, 100, 44),  # k = 22
        (26, 5, 2),  # 13 pairs are no multiple of anything
        (10, 1, 2),
        (2, 10, 2),
        (4096, 2048, 2),  # 2^21 numbers are too many
    ],
)
def test_pairs_are_orthogonal_where_that_pays(n: int, dim: int, block: int) -> None:
    noise = Paired().noise(AT, n, dim)
    expected = (Antithetic(Orthogonal(block // 2)) if block > 2 else Antithetic()).noise(AT, n, dim)

    assert noise == expected
    assert noise.block == block
    assert n // block >= 2 or n == 2


def test_an_odd_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 2 rows, got n=5"):
        Paired().noise(AT, 5, 3)


def test_variance_is_that_of_two_orthogonal_blocks() -> None:
    """On a linear f: ((d + 2) / k - 1) / 2 against (d + 1) / k / 2, k = d / 2."""
    dim, n, a = 16, 32, np.linspace(0.5, 1.5, 16)
    errors = []
    for sampler in (Paired(), Antithetic()):
        found = [
            esopt.smoothed_gradient(lambda x: float(a @ x), np.zeros(dim), n=n, seed=s, sampler=sampler).mean
            for s in range(600)
        ]
        errors.append(np.square(np.array(found) - a).sum(axis=1).mean() / (a @ a))

    assert errors[0] == pytest.approx((18 / 8 - 1) / 2, rel=0.1)
    assert errors[1] == pytest.approx(17 / 16, rel=0.1)


def test_the_sum_of_squared_errors_is_as_precise_as_from_independent_pairs() -> None:
    """Two blocks: one degree of freedom for each coordinate, but a hundred coordinates."""
    dim, a, spread = 100, np.linspace(0.5, 1.5, 100), []
    for sampler in (Paired(), Antithetic()):
        errors = [
            esopt.smoothed_gradient(lambda x: x @ a, np.zeros(dim), n=200, seed=s, sampler=sampler, vectorized=True)
            for s in range(150)
        ]
        sums = np.array([np.square(g.mean_stderr).sum() for g in errors])
        truth = np.mean([np.square(g.mean - a).sum() for g in errors])
        assert sums.mean() == pytest.approx(truth, rel=0.1)
        spread.append(sums.std() / sums.mean())

    assert spread[0] < 1.1 * spread[1] < 0.25


def test_pairs_without_a_failure_are_used_if_every_block_has_one() -> None:
    """The estimate from the six pairs that are left, without an error bar."""
    population = Population(np.ones(4), 0.5, Antithetic(Orthogonal(4)).noise(AT, 16, 4))
    x = population.rows()
    values = (x**2).sum(axis=1) + x[:, 0] ** 3
    values[[3, 12]] = np.nan, np.inf
    gradient, _ = Score().estimate(population, Evals(values), Score().init(4))

    left = [0, 2, 3, 4, 5, 7]
    eps = population.noise.rows().astype(np.float64)[::2][left]
    differences = (values[::2] - values[1::2])[left]
    np.testing.assert_allclose(gradient.mean, differences @ eps / (2 * 0.5 * len(left)), rtol=1e-6)
    assert gradient.blocks == 1
    assert np.isnan(gradient.mean_stderr).all()
    assert gradient.value == pytest.approx(values[np.isfinite(values)].mean())


def test_rows_that_are_no_pairs_still_need_a_block() -> None:
    population = Population(np.ones(4), 0.5, Gaussian().noise(AT, 4, 4))
    with pytest.raises(esopt.EvaluationError, match="no usable candidate"):
        Score().estimate(population, Evals(np.full(4, np.nan)), Score().init(4))
