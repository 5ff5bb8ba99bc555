"""Variances of the score's mean gradient under every sampler against their closed forms.

f(x) = c + a.x + x'Hx / 2 around the mean 0, smoothed with sigma. V is the trace of the covariance of one block's
estimate, measured from the standard errors that Score reports over thousands of blocks; its own standard error comes
from the scatter of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from esopt import (
    Antithetic,
    Evals,
    Gaussian,
    Hadamard,
    Key,
    LowRank,
    NoBaseline,
    Orthogonal,
    Population,
    Rademacher,
    Score,
    Sobol,
    Sphere,
)

Array = np.ndarray[Any, Any]
SIGMA = 0.7


@dataclass(frozen=True)
class Found:
    """Mean of the blocks' estimates, its distance from the truth in standard errors, V and its standard error."""

    mean: Array
    worst: float
    variance: float
    error: float


def measure(
    sampler: Any, dim: int, blocks: int, f: Callable[[Array], Array], truth: Array, sigma: float = SIGMA
) -> Found:
    """V of one block of the score without a baseline; every block contributes one estimate."""
    size = sampler.block
    noise = sampler.noise(Key(31), blocks * size, dim)
    rows = noise.rows().astype(np.float64)
    values = f(sigma * rows)
    score = Score(NoBaseline())
    gradient, _ = score.estimate(Population(np.zeros(dim), sigma, noise), Evals(values), score.init(dim))
    each = (values[:, None] * rows).reshape(blocks, size, dim).mean(axis=1) / sigma
    squares = np.square(each - gradient.mean).sum(axis=1)
    variance = blocks * float(gradient.mean_stderr @ gradient.mean_stderr)

    assert (noise.block, gradient.blocks) == (size, blocks)
    np.testing.assert_allclose(gradient.mean, each.mean(axis=0), rtol=0.0, atol=1e-5 * np.abs(each).max())
    # Sums over rows and standard errors agree with plain numpy; float32 sums of the Gaussian kernels allow 1e-5.
    assert abs(variance - squares.sum() / (blocks - 1)) <= 1e-4 * variance + 1e-9 * float(truth @ truth)
    worst = float((np.abs(gradient.mean - truth) / (gradient.mean_stderr + 1e-5)).max())
    return Found(gradient.mean, worst, variance, float(squares.std() / np.sqrt(blocks)))


@dataclass(frozen=True)
class Quadratic:
    """c is chosen for a given mean value m of the smoothed function; ``bend`` multiplies the Hessian."""

    dim: int
    m: float = 0.0
    bend: float = 1.0

    @property
    def a(self) -> Array:
        return np.linspace(-0.6, 1.0, self.dim)

    @property
    def h(self) -> Array:
        root = np.random.default_rng(self.dim).standard_normal((self.dim, self.dim))
        return self.bend * ((root + root.T) / 4.0 + np.diag(np.linspace(0.0, 2.0, self.dim)))

    def __call__(self, x: Array) -> Array:
        c = self.m - 0.5 * SIGMA**2 * np.trace(self.h)
        return c + x @ self.a + 0.5 * ((x @ self.h) * x).sum(axis=1)

    @property
    def aa(self) -> float:
        return float(self.a @ self.a)

    @property
    def h1(self) -> float:
        return float(np.trace(self.h))

    @property
    def h2(self) -> float:
        return float(np.square(self.h).sum())

    @property
    def diagonal(self) -> float:
        return float(np.square(np.diag(self.h)).sum())

    def iid(self) -> float:
        """Gaussian rows, no baseline: E2."""
        d, s = self.dim, SIGMA
        return d * self.m**2 / s**2 + (d + 1) * self.aa + (d / 2 + 2) * s**2 * self.h2 + 2 * self.m * self.h1


def check(found: Found, variance: float, precision: float = 0.12) -> None:
    """Unbiased, and V within five standard errors of the closed form; those make up less than ``precision`` of it."""
    assert found.worst < 5.0
    assert 5.0 * found.error < precision * variance
    assert abs(found.variance - variance) < 5.0 * found.error


Q = Quadratic(12)
SHIFTED = Quadratic(12, 1.5)


def test_independent_rows() -> None:
    """The reference: E2 and E9."""
    check(measure(Gaussian(), 12, 40_000, SHIFTED, Q.a), SHIFTED.iid())
    check(measure(Antithetic(), 12, 40_000, SHIFTED, Q.a), 13 * Q.aa)


@pytest.mark.parametrize("k", [1, 4, 12])
def test_orthogonal_pairs(k: int) -> None:
    """E15: (d + 2) / k - 1, whatever the mean value."""
    check(measure(Antithetic(Orthogonal(k)), 12, 8000, SHIFTED, Q.a), (14 / k - 1) * Q.aa)


@pytest.mark.parametrize("k", [2, 5, 12])
@pytest.mark.parametrize("f", [Q, SHIFTED], ids=["baseline m", "no baseline"])
def test_orthogonal_rows(k: int, f: Quadratic) -> None:
    """E15b: V_iid / k - (1 - 1 / k) |a|^2 for any fixed baseline."""
    check(measure(Orthogonal(k), 12, 12_000, f, Q.a), f.iid() / k - (1 - 1 / k) * Q.aa)


def test_the_orthogonal_identity_holds_for_any_function() -> None:
    """f = sin(1 + a.x) + |x_1|: V_block = V_iid / k - (1 - 1 / k) |grad J|^2, both sides measured."""
    a, k = 0.9 * Q.a, 6

    def f(x: Array) -> Array:
        return np.sin(1.0 + x @ a) + np.abs(x[:, 1])

    truth = np.cos(1.0) * np.exp(-0.5 * SIGMA**2 * float(a @ a)) * a
    one, block = measure(Gaussian(), 12, 60_000, f, truth), measure(Orthogonal(k), 12, 12_000, f, truth)
    expected = one.variance / k - (1 - 1 / k) * float(truth @ truth)

    assert max(one.worst, block.worst) < 5.0
    assert abs(block.variance - expected) < 5.0 * np.hypot(block.error, one.error / k) < 0.15 * expected


def test_fifty_times_less_variance_at_equal_cost() -> None:
    """d = 100, k = 100 pairs: (d + 1) / 2 = 50.5, measured within 10 %."""
    f = Quadratic(100)
    iid, full = measure(Antithetic(), 100, 16_000, f, f.a), measure(Antithetic(Orthogonal(100)), 100, 400, f, f.a)
    ratio = iid.variance / (100 * full.variance)
    error = ratio * np.hypot(iid.error / iid.variance, full.error / full.variance)

    check(full, 0.02 * f.aa)
    assert abs(ratio - 50.5) < 5.0 * error < 5.0


@pytest.mark.parametrize("k", [10, 50])
def test_part_blocks_in_a_hundred_dimensions(k: int) -> None:
    """E15, d = 100: 1.1 and 1.9 times less variance than independent pairs of the same number."""
    f = Quadratic(100)
    check(measure(Antithetic(Orthogonal(k)), 100, 20_000 // k, f, f.a), (102 / k - 1) * f.aa)


@pytest.mark.parametrize("sampler", [Rademacher(), Sphere(), Hadamard(1)], ids=repr)
def test_fixed_lengths_in_pairs(sampler: Any) -> None:
    """E14: (d - 1) |a|^2."""
    check(measure(Antithetic(sampler), 12, 40_000, SHIFTED, Q.a), 11 * Q.aa)


@pytest.mark.parametrize("sampler", [Rademacher(), Hadamard(1)], ids=repr)
def test_signs_see_only_the_mixed_curvature(sampler: Any) -> None:
    """E14b, baseline m."""
    check(measure(sampler, 12, 40_000, Q, Q.a), 11 * Q.aa + 6 * SIGMA**2 * (Q.h2 - Q.diagonal))


def test_the_sphere_sees_the_curvature_without_its_mean() -> None:
    """E14c, baseline m."""
    expected = 11 * Q.aa + 12 * SIGMA**2 * (12 * Q.h2 - Q.h1**2) / (2 * 14)
    check(measure(Sphere(), 12, 40_000, Q, Q.a), expected)


@pytest.mark.parametrize("k", [2, 4, 8])
def test_hadamard_pairs_where_d_is_a_power_of_two(k: int) -> None:
    """E16: d / k - 1."""
    f = Quadratic(16, 1.5)
    check(measure(Antithetic(Hadamard(k)), 16, 20_000, f, f.a), (16 / k - 1) * f.aa)


@pytest.mark.parametrize("k", [3, 8, 12])
def test_hadamard_pairs_elsewhere(k: int) -> None:
    """d = 12 of P = 16 columns: d / k - 1 + (1 - 1 / k) (P - d) / (P - 1)."""
    expected = 12 / k - 1 + (1 - 1 / k) * 4 / 15
    check(measure(Antithetic(Hadamard(k)), 12, 20_000, SHIFTED, Q.a), expected * Q.aa)


@pytest.mark.parametrize("dim", [12, 16])
def test_a_whole_hadamard_block_of_pairs_is_exact(dim: int) -> None:
    """k = P: variance 0 on any quadratic, in every single block."""
    f = Quadratic(dim, 1.5)
    found = measure(Antithetic(Hadamard(16)), dim, 50, f, f.a)

    np.testing.assert_allclose(found.mean, f.a, rtol=0.0, atol=1e-12)
    assert found.variance < 1e-12


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_pairs(rank: int) -> None:
    """E25: |G|^2 (m n + 1 + 2 (m + n + 1) / r); with a vector beside the matrix each part adds |G_p|^2 (d - d_p)."""
    check(measure(Antithetic(LowRank((3, 4), rank)), 12, 60_000, Q, Q.a), Q.aa * (13 + 16 / rank), 0.2)
    matrix, vector = float(Q.a[:6] @ Q.a[:6]), float(Q.a[6:] @ Q.a[6:])
    expected = matrix * (7 + 2 * 6 / rank) + vector * 7 + 6 * Q.aa
    both = Antithetic(LowRank(rank=rank, shapes=((2, 3), (6,))))
    check(measure(both, 12, 60_000, Q, Q.a), expected, 0.2)


def _mse_ratio(sampler: Any, n: int, generations: int) -> tuple[float, float]:
    """MSE of independent rows over that of the sampler, d = 8, baseline m; with its relative standard error.

    The curvature is a fifth of the gradient: sigma^2 |H|^2 = 0.2 |a|^2.
    """
    f = Quadratic(8)
    f = Quadratic(8, bend=float(np.sqrt(0.2 * f.aa / f.h2) / SIGMA))
    score, squares = Score(NoBaseline()), []
    for generation in range(generations):
        population = Population(np.zeros(8), SIGMA, sampler.noise(Key(5, generation), n, 8))
        gradient, _ = score.estimate(population, Evals(f(population.rows())), score.init(8))
        squares.append(float(np.square(gradient.mean - f.a).sum()))
    mse = np.mean(squares)
    return f.iid() / n / mse, float(np.std(squares) / mse / np.sqrt(generations))


def test_scrambled_sobol_against_independent_rows() -> None:
    """d = 8, n = 4096, by three standard errors: 50 times less with one scramble, 8 times with 8 replicates."""
    one, error = _mse_ratio(Sobol(), 4096, 25)
    assert one * (1.0 - 3.0 * error) > 50.0
    eight, error = _mse_ratio(Sobol(8), 4096, 25)
    assert eight * (1.0 - 3.0 * error) > 8.0
    plain, error = _mse_ratio(Gaussian(), 4096, 80)
    assert abs(plain - 1.0) < 5.0 * error < 0.5


def test_replicates_give_honest_error_bars() -> None:
    """The mean squared error over the mean squared standard error of 8 scrambles is 1, over many generations."""
    f, score = Quadratic(8), Score(NoBaseline())
    truth, declared = [], []
    for generation in range(100):
        population = Population(np.zeros(8), SIGMA, Sobol(8).noise(Key(6, generation), 512, 8))
        gradient, _ = score.estimate(population, Evals(f(population.rows())), score.init(8))
        truth.append(float(np.square(gradient.mean - f.a).sum()))
        declared.append(float(gradient.mean_stderr @ gradient.mean_stderr))

    assert 0.8 < np.mean(truth) / np.mean(declared) < 1.25
