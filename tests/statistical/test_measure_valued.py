"""Measure-valued derivatives: what the explicit rows are, exact means on quadrature nodes, variances, jumps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt import Antithetic, Evals, EvaluationError, Gaussian, Given, Key, MeasureValued, Population
from esopt.noise import PROBE
from tests.reference import quadrature
from tests.statistical import exact

Array = NDArray[np.float64]
D = 5
A = np.array([0.9, -0.5, 0.7, 0.2, -1.1])
H = np.array(
    [
        [1.5, 0.4, -0.3, 0.0, 0.5],
        [0.4, -0.6, 0.2, 0.8, 0.0],
        [-0.3, 0.2, 0.9, -0.4, 0.1],
        [0.0, 0.8, -0.4, 0.3, -0.7],
        [0.5, 0.0, 0.1, -0.7, 1.2],
    ]
)


def prepared(k: int | None, n: int, dim: int = D, scale: Any = 0.6, generation: int = 0) -> Population:
    estimator = MeasureValued(k)
    noise = Gaussian().noise(Key(3, generation), n, dim)
    return estimator.prepare(Population(np.linspace(-0.4, 0.5, dim), scale, noise), estimator.init(dim))


def moves(population: Population, k: int) -> tuple[NDArray[np.intp], Array]:
    """Coordinates (n, k) and lengths (n, k), read off the explicit rows after checking that nothing else moved."""
    n, d = population.n, population.dim
    base = np.repeat(population.rows(0, n), 2 * k, axis=0).reshape(n, k, 2, d)
    rows = population.rows(n).reshape(n, k, 2, d)
    changed = rows != base
    assert (changed.sum(axis=3) == 1).all()
    chosen = changed.argmax(axis=3)
    assert (chosen[:, :, 0] == chosen[:, :, 1]).all()
    ends = np.take_along_axis((rows - population.mean) / population.scale, chosen[..., None], axis=3)[..., 0]
    np.testing.assert_allclose(ends[:, :, 0], -ends[:, :, 1], rtol=1e-12)
    return chosen[:, :, 0], ends[:, :, 0]


def test_explicit_rows_move_one_coordinate_to_both_sides() -> None:
    """All coordinates in their order, by the length of two normals of the probes' stream."""
    population = prepared(None, 6)
    chosen, lengths = moves(population, D)
    stream = Gaussian().noise(Key(3, 0, PROBE), 6, D)
    first, second = (stream.rows(at, at + 6).astype(np.float64) for at in (0, 1 << 30))

    assert len(population) == 6 * (1 + 2 * D)
    assert (chosen == np.arange(D)).all()
    np.testing.assert_allclose(lengths, np.hypot(first, second), rtol=1e-12)
    assert not (prepared(None, 6, generation=1).rows() == population.rows()).any()


def test_random_coordinates_are_distinct_and_uniform() -> None:
    n, k = 4000, 2
    chosen, lengths = moves(prepared(k, n), k)

    assert (chosen[:, 0] < chosen[:, 1]).all()
    pairs = np.bincount(chosen[:, 0] * D + chosen[:, 1], minlength=D * D)
    expected = n / math.comb(D, 2)
    found = pairs[pairs > 0]
    assert found.size == math.comb(D, 2)
    assert np.square(found - expected).sum() / expected < 30.0  # chi^2 with 9 degrees of freedom
    whole = prepared(None, n)
    np.testing.assert_allclose(lengths, np.take_along_axis(moves(whole, D)[1], chosen, axis=1), rtol=1e-9)


def test_lengths_are_rayleigh_and_know_nothing_of_the_noise() -> None:
    """W^2 / 2 is a standard exponential variable: its distribution function at its quantiles."""
    population = prepared(None, 8000)
    half = 0.5 * np.square(moves(population, D)[1])
    eps = (population.rows(0, population.n) - population.mean) / 0.6

    for p in (0.1, 0.5, 0.9, 0.99):
        share = np.mean(half < -math.log1p(-p))
        assert abs(share - p) < 4.0 * math.sqrt(p * (1.0 - p) / half.size)
    others = half - 1.0
    assert abs(np.mean(others * eps)) * math.sqrt(half.size) < 4.0
    assert abs(np.mean(others * (np.square(eps) - 1.0))) * math.sqrt(half.size / 2.0) < 4.0
    assert abs(np.mean(others[:, 0] * others[:, 1])) * math.sqrt(len(half)) < 4.0


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
@pytest.mark.parametrize(("dim", "k"), [(1, 1), (2, 2), (3, 3), (3, 1), (3, 2)])
def test_exact_given_the_lengths(dim: int, k: int, kind: str, pair: bool) -> None:
    """On a cubic, averaged over the noise on nodes, and its variance: the lengths stay, so the formulas have them.

    A row's estimate of d_i f is (2 W a_i + W^3 t_i / 3 + 2 W sum_j H_ij eps_j) / sqrt(2 pi), in scaled coordinates.
    """
    estimator, problem = MeasureValued(k), exact.cubic(dim)
    at, scale, sigma = exact.mean(dim), exact.scale_of(kind, dim), exact.sigma_of(kind, dim)
    units = 2 if pair else 1
    probe = estimator.prepare(Population(at, scale, Given(np.full((units, dim), 0.123))), ())
    chosen, w = moves(probe, k)

    def estimate(eps: Array) -> Array:
        rows = np.concatenate([eps, -eps]) if pair else eps
        population = estimator.prepare(Population(at, scale, Given(rows, units, pair)), ())
        return estimator.estimate(population, Evals(problem.f(population.rows())), ())[0].mean

    found = quadrature.moments(estimate, 1, dim, 4)
    _, a, h, t = problem.at(at, sigma)
    moved, slopes = np.zeros((units, dim)), np.zeros((units, dim, dim))
    for row in range(units):
        for i, length in zip(chosen[row], w[row], strict=True):
            moved[row, i] = 2.0 * length * a[i] + length**3 * t[i] / 3.0
            slopes[row, i] = 2.0 * length * h[i] * (np.arange(dim) != i) * (-1.0) ** row
    share = dim / k / math.sqrt(2.0 * math.pi) / sigma
    assert exact.agree(found.mean, share * moved.mean(axis=0), np.sqrt(found.square))
    variance = np.square(share[:, None] * slopes.mean(axis=0)).sum(axis=1)
    assert exact.agree(found.variance, variance, found.square)


@pytest.mark.parametrize("scale", [0.6, np.array([0.4, 0.9, 0.6, 1.1, 0.3])], ids=["scalar", "diagonal"])
@pytest.mark.parametrize("k", [1, 2, None])
def test_variance_is_that_of_the_theory(k: int | None, scale: Any) -> None:
    """E18, E18b: the squared standard errors of 40 generations of 500 rows, within four of their own errors."""
    sigma, n, totals, means = np.broadcast_to(scale, D), 500, [], []
    a = A + H @ np.linspace(-0.4, 0.5, D)
    for generation in range(40):
        population = prepared(k, n, D, scale, generation)
        x = population.rows()
        g, _ = MeasureValued(k).estimate(population, Evals(x @ A + 0.5 * np.einsum("ij,jk,ik->i", x, H, x)), ())
        totals.append(n * np.square(g.mean_stderr * sigma))
        means.append(g.mean * sigma)
    local, h = sigma * a, sigma[:, None] * H * sigma
    second = 4.0 / math.pi * (local**2 + np.square(h).sum(axis=1) - np.diag(h) ** 2)
    expected = D / (k or D) * second - local**2
    found, error = np.mean(totals, axis=0), np.std(totals, axis=0, ddof=1) / math.sqrt(40.0)
    total, total_error = found.sum(), np.std(np.sum(totals, axis=1), ddof=1) / math.sqrt(40.0)

    assert np.abs((np.mean(means, axis=0) - local) / np.sqrt(expected / (40 * n))).max() < 4.0
    assert np.abs((found - expected) / error).max() < 4.0
    assert abs(total - expected.sum()) < 4.0 * total_error
    assert total_error < 0.03 * expected.sum()
    if np.ndim(scale) == 0:
        aa, q = a @ a, 0.36 * (np.square(H).sum() - np.square(np.diag(H)).sum())
        assert expected.sum() / 0.36 == pytest.approx(4.0 * D / (k or D) / math.pi * (aa + q) - aa, rel=1e-12)


@pytest.mark.parametrize("sampler", [Gaussian(), Antithetic()], ids=["rows", "pairs"])
@pytest.mark.parametrize("k", [1, None])
def test_jumps_are_seen(k: int | None, sampler: Any) -> None:
    """f = 1 where u.x > c: grad J = u phi(t) / sigma with t = (u.x - c) / sigma."""
    u, sigma, x = np.array([0.6, 0.0, -0.8]), 0.5, np.array([0.3, 0.1, -0.2])
    g = esopt.smoothed_gradient(
        lambda rows: (rows @ u > 0.1).astype(np.float64),
        x,
        sigma=sigma,
        n=40_000,
        seed=2,
        estimator=MeasureValued(k),
        sampler=sampler,
        vectorized=True,
    )
    t = (x @ u - 0.1) / sigma
    truth = u * math.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi) / sigma

    assert (np.abs(g.mean - truth)[[0, 2]] < 4.0 * g.mean_stderr[[0, 2]]).all()
    assert (np.abs(truth) > 20.0 * g.mean_stderr)[[0, 2]].all()
    assert g.mean[1] == 0.0
    assert g.evaluations == 40_000 * (1 + 2 * (k or 3))


def evaluated(population: Population) -> Array:
    x = population.rows()
    return x @ A + 0.5 * np.einsum("ij,jk,ik->i", x, H, x)


@pytest.mark.parametrize("kind", [np.nan, np.inf])
@pytest.mark.parametrize("row", [3, 6 + 2 * D * 3 + 1, 6 + 2 * D * 2])
def test_a_failed_row_drops_its_block(row: int, kind: float) -> None:
    """Noise row 3, or an explicit row of noise row 3 or 2: the estimate is that of the rows 0, 1, 4 and 5."""
    rows = Gaussian().noise(Key(3), 6, D).rows().astype(np.float64)
    estimator = MeasureValued()
    whole = estimator.prepare(Population(np.zeros(D), 0.6, Given(rows, 2)), ())
    values = evaluated(whole)
    keep = np.r_[0, 1, 4, 5]
    extra = whole.rows(6).reshape(6, -1, D)[keep].reshape(-1, D)
    rest = replace(whole, noise=Given(rows[keep], 2), extra=extra, tags=whole.tags[: len(extra)])
    expected, _ = estimator.estimate(rest, Evals(evaluated(rest)), ())
    values[row] = kind
    found, _ = estimator.estimate(whole, Evals(values), ())

    assert found.blocks == 2
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.mean_stderr, expected.mean_stderr, rtol=1e-12)
    values[6 + 2 * D * 3 : 6 + 2 * D * 3 + 2] = kind  # both ends of a difference
    np.testing.assert_array_equal(estimator.estimate(whole, Evals(values), ())[0].mean, found.mean)


def test_no_rows_left_is_an_error() -> None:
    population = prepared(None, 4)
    values = evaluated(population)
    values[4 :: 2 * D] = np.nan

    with pytest.raises(EvaluationError, match="no usable candidate"):
        MeasureValued().estimate(population, Evals(values), ())


def test_one_block_has_no_standard_error() -> None:
    population = prepared(2, 1)
    g, _ = MeasureValued(2).estimate(population, Evals(evaluated(population)), ())

    assert np.isfinite(g.mean).all()
    assert np.count_nonzero(g.mean) == 2
    assert np.isnan(g.mean_stderr).all()


def test_noise_that_all_rows_share_cancels() -> None:
    """A seeded f under one seed for all: the differences are those of the quiet f."""

    def noisy(x: Array, seed: int) -> float:
        return float(x @ A) + seed * 1e-6

    estimates = [
        esopt.Optimizer(
            esopt.GradientES(n=4, estimator=MeasureValued(), rule=esopt.SGD(0.1), share="generation"),
            np.zeros(D),
            seed=1,
        )
        for _ in range(2)
    ]
    for es, f in zip(estimates, (noisy, lambda x, seed: float(x @ A)), strict=True):
        es.tell([f(x, int(s)) for x, s in zip(es.ask(), es.seeds, strict=True)])
    np.testing.assert_allclose(estimates[0].mean, estimates[1].mean, rtol=1e-8)


@pytest.mark.parametrize("k", [None, 2])
def test_a_strategy_descends_with_it(k: int | None) -> None:
    strategy = esopt.GradientES(sigma=0.1, n=4, estimator=MeasureValued(k), rule=esopt.SGD(0.1))
    result = esopt.minimize(lambda x: float(x @ x), np.ones(D), strategy=strategy, seed=0, generations=60)

    assert float(result.mean @ result.mean) < 1e-3


@pytest.mark.parametrize("coordinates", [0, -1, 1.5, True, "all"])
def test_bad_counts_are_refused(coordinates: Any) -> None:
    with pytest.raises(ValueError, match="coordinates must be a positive whole number or None"):
        MeasureValued(coordinates)


def test_refusals() -> None:
    noise = esopt.Sphere().noise(Key(0), 4, 3)
    with pytest.raises(ValueError, match=r"MeasureValued\(\) got noise that is uniform on the sphere"):
        MeasureValued().prepare(Population(np.zeros(3), 1.0, noise), ())
    with pytest.raises(ValueError, match=r"MeasureValued\(\) got the scale a factor \(3, 3\)"):
        MeasureValued().prepare(Population(np.zeros(3), np.eye(3), Gaussian().noise(Key(0), 4, 3)), ())
    with pytest.raises(ValueError, match="coordinates=4 in 3 dimensions"):
        MeasureValued(4).init(3)
    with pytest.raises(ValueError, match="needs the values as they are"):
        esopt.GradientES(estimator=MeasureValued(), shaping=esopt.CenteredRanks())
