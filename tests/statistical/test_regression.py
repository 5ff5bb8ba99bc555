"""Least squares against theory.md E12, E13, E16 and E24, central differences against E22, and their standard errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esopt import (
    Antithetic,
    Coordinates,
    Evals,
    Gaussian,
    Given,
    Hadamard,
    Key,
    NoBaseline,
    Orthogonal,
    Population,
    Rademacher,
    Regression,
    Score,
    Sphere,
)
from esopt.estimators.regression import RegressionState
from esopt.estimators.score import ScoreState
from tests.reference.oracles import Cosine, Polynomial

Array = NDArray[np.float64]

DIM = 6
MEAN = np.linspace(-0.5, 0.8, DIM)
SCALES: dict[str, Any] = {
    "scalar": 0.4,
    "diagonal": np.linspace(0.2, 0.9, DIM),
    "factor": np.eye(DIM) * 0.5 + np.tri(DIM, k=-1) * 0.2,
}


def polynomial(dim: int, *, bent: float = 1.0, cubic: float = 0.0) -> Polynomial:
    """A function with a full, indefinite Hessian, and third derivatives if asked for."""
    rows = Gaussian().noise(Key(5), dim, dim).rows().astype(np.float64)
    q = bent * (rows + rows.T) / np.sqrt(dim)
    return Polynomial(1.9, np.linspace(1.0, -0.7, dim), q, cubic * np.linspace(0.5, 1.0, dim))


def population(sampler: Any, n: int, dim: int = DIM, scale: Any = 0.4, generation: int = 0) -> Population:
    return Population(np.resize(MEAN, dim), scale, sampler.noise(Key(21, generation), n, dim))


def slope(f: Any, people: Population, estimator: Regression | None = None, past: Array | None = None) -> Any:
    """The estimate from the values of ``f``, with rows (k, d) for the past."""
    estimator = estimator or Regression()
    state = RegressionState(np.zeros((0, people.dim)) if past is None else past)
    people = estimator.prepare(people, state)
    return estimator.estimate(people, Evals(f(people.rows())), state)[0]


def means(f: Any, sampler: Any, n: int, dim: int, count: int, sigma: float = 0.4, **rest: Any) -> Array:
    """Estimates of many generations, (count, d)."""
    return np.array([slope(f, population(sampler, n, dim, sigma, g), **rest).mean for g in range(count)])


def near(found: Array, expected: float, within: float = 4.5) -> bool:
    """Whether the mean of independent numbers is as expected, within their standard errors."""
    return bool(abs(found.mean() - expected) < within * found.std(ddof=1) / np.sqrt(len(found)))


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
@pytest.mark.parametrize(
    "sampler", [Gaussian(), Sphere(), Rademacher(), Antithetic(), Antithetic(Orthogonal(3))], ids=repr
)
def test_exact_on_linear_functions_and_pairs_on_quadratics(sampler: Any, scale: Any) -> None:
    """E12: with more directions than unknowns there is no variance, whatever the law and the scale."""
    people = population(sampler, 24, scale=scale)
    for f in (polynomial(DIM, bent=0.0), polynomial(DIM)) if sampler.mirrored else (polynomial(DIM, bent=0.0),):
        found = slope(f.f, people)
        assert np.abs(found.mean - f.grad(MEAN)).max() < 1e-11
        assert found.mean_stderr.max() < 1e-11
        assert found.notes["regression"] == "least squares"


@pytest.mark.parametrize("n", [DIM + 2, 3 * DIM])
def test_unbiased_on_quadratics_by_symmetry(n: int) -> None:
    """The mean of the estimates from rows and from minus the rows is the gradient, for every design."""
    f = polynomial(DIM)
    for seed in range(20):
        rows = Gaussian().noise(Key(seed), n, DIM).rows().astype(np.float64)
        sides = [slope(f.f, Population(MEAN, 0.7, Given(side))).mean for side in (rows, -rows)]
        assert np.abs(sides[0] - f.grad(MEAN)).max() > 1e-3
        assert np.abs(0.5 * (sides[0] + sides[1]) - f.grad(MEAN)).max() < 1e-10 * np.abs(sides).max()


@pytest.mark.parametrize(("n", "factor"), [(60, 1.02), (12, 1.25)])
def test_variance_on_quadratics(n: int, factor: float) -> None:
    """E12 at d = 5: (d / 2 + 2) sigma^2 |H|^2 / n times the factors that were measured."""
    f = polynomial(5)
    square = np.square(means(f.f, Gaussian(), n, 5, 1000) - f.grad(np.resize(MEAN, 5))).sum(axis=1)
    expected = 4.5 * 0.4**2 * np.square(f.q).sum() / n

    assert abs(square.mean() / expected - factor) < 0.1


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "rows"])
def test_fewer_directions_give_the_projection(pairs: bool) -> None:
    """E13: mean k / d of the gradient, mean squared error (1 - k / d) |grad|^2; n centred rows span n - 1."""
    dim, k, f = 10, 4, polynomial(10, bent=1.0 if pairs else 0.0)
    sampler, n = (Antithetic(), 2 * k) if pairs else (Gaussian(), k + 1)
    a = f.grad(np.resize(MEAN, dim))
    found = means(f.f, sampler, n, dim, 800)

    assert near(found @ a / (a @ a), k / dim)
    assert near(np.square(found - a).sum(axis=1) / (a @ a), 1.0 - k / dim)
    assert np.abs(found.mean(axis=0) - k / dim * a).max() < 5.0 * found.std(axis=0).max() / np.sqrt(800)


def test_the_score_of_signs_is_the_projection_times_d_over_k() -> None:
    """E13 and E16: orthogonal directions of one length."""
    people, f = population(Antithetic(Hadamard(3)), 6, 8), polynomial(8)
    score = Score(NoBaseline()).estimate(people, Evals(f.f(people.rows())), ScoreState(()))[0]

    assert np.abs(score.mean - 8 / 3 * slope(f.f, people).mean).max() < 1e-5


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "rows"])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
def test_recycled_directions_keep_their_share(pairs: bool, rho: float) -> None:
    """E24: rho^2 + (1 - rho^2) P / (d - 1) of the squared length, and the rest is the mean squared error.

    The two sides of the recycled direction say what f is at the mean, so that no row goes into the intercept.
    """
    dim, new, f = 20, 5, polynomial(20, bent=1.0 if pairs else 0.0)
    sampler, n = (Antithetic(), 2 * new) if pairs else (Gaussian(), new)
    a = f.grad(np.resize(MEAN, dim))
    other = np.linspace(1.0, 2.0, dim)
    other -= (other @ a) / (a @ a) * a
    past = rho * a / np.linalg.norm(a) + np.sqrt(1.0 - rho**2) * other / np.linalg.norm(other)
    found = means(f.f, sampler, n, dim, 500, estimator=Regression(1), past=3.0 * past[None])
    share = rho**2 + (1.0 - rho**2) * new / (dim - 1)

    assert near(np.square(found).sum(axis=1) / (a @ a), share)
    assert near(np.square(found - a).sum(axis=1) / (a @ a), 1.0 - share)


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_recycled_gradients_are_never_lost(scale: Any) -> None:
    """Two past gradients whose span holds the true one, and a third that adds nothing, at any scale."""
    f, rows = polynomial(DIM), 4
    for sampler in (Gaussian(), Antithetic()):
        plain = polynomial(DIM, bent=0.0) if sampler == Gaussian() else f
        a = plain.grad(MEAN)
        past = np.stack([a + 1.0, np.ones(DIM), 2.0 * a + 2.0])
        people = Regression(3).prepare(population(sampler, rows, scale=scale), RegressionState(past))
        assert len(people) == rows + 4
        found = slope(plain.f, population(sampler, rows, scale=scale), Regression(3), past)
        assert np.abs(found.mean - a).max() < 1e-9


def left_out(f: Any, people: Population, block: int, past: Array | None) -> Array:
    """Squared standard errors by fitting again without each block in turn: the definition of the jackknife."""
    eps = people.noise.rows().astype(np.float64)
    mirrored, state = people.noise.mirrored, RegressionState(np.zeros((0, people.dim)) if past is None else past)
    extra = Regression(3).prepare(people, state).extra
    x = eps if extra is None else np.concatenate([eps, (extra - people.mean) / people.scale])
    y = f(people.mean + people.scale * x)
    owner = np.concatenate([np.arange(len(eps)) // block, len(eps) + np.arange(len(x) - len(eps)) // 2])

    def fit(keep: NDArray[np.bool_]) -> Array:
        rows = x[keep] if mirrored else np.column_stack([x[keep], np.ones(keep.sum())])
        return np.linalg.lstsq(rows, y[keep])[0][: people.dim] / people.scale

    whole = fit(np.ones(len(x), bool))
    changes = np.array([fit(owner != b) - whole for b in np.unique(owner)])
    return (len(changes) - 1) / len(changes) * np.square(changes).sum(axis=0)


@pytest.mark.parametrize("recycle", [0, 2])
@pytest.mark.parametrize(
    ("sampler", "n"),
    [(Gaussian(), 12), (Orthogonal(3), 18), (Antithetic(), 24), (Antithetic(Orthogonal(3)), 36)],
    ids=repr,
)
def test_standard_errors_are_the_jackknife(sampler: Any, n: int, recycle: int) -> None:
    f = polynomial(DIM, cubic=1.0)
    past = np.stack([MEAN, MEAN**2 + 1.0]) if recycle else None
    people = population(sampler, n)
    found = slope(f.f, people, Regression(recycle), past)

    assert np.abs(np.square(found.mean_stderr) / left_out(f.f, people, sampler.block, past) - 1.0).max() < 1e-6


def noisy(f: Any, generation: int) -> Any:
    """Values with an error that grows with the distance along the first coordinate, fresh in every generation."""

    def values(x: Array) -> Array:
        error = Gaussian().noise(Key(9, generation), len(x), 1).rows()[:, 0]
        return np.asarray(f(x) + 2.0 * np.abs(x[:, 0] - MEAN[0]) * error)

    return values


@pytest.mark.parametrize(
    ("sampler", "n"), [(Gaussian(), 128), (Antithetic(), 256), (Antithetic(Orthogonal(2)), 256)], ids=repr
)
def test_standardised_errors_have_variance_one(sampler: Any, n: int) -> None:
    """64 to 128 blocks: curved (rows), third derivatives (pairs), and errors of the values that depend on the place."""
    f = polynomial(DIM, cubic=0.0 if n == 128 else 4.0)
    truth = f.mean_gradient(MEAN, np.full(DIM, 0.4))
    found = [slope(noisy(f.f, g), population(sampler, n, generation=g)) for g in range(400)]
    off, error = np.array([g.mean for g in found]) - truth, np.array([g.mean_stderr for g in found])

    assert 0.9 < np.square(off / error).mean() < 1.1
    assert 0.85 < np.square(off).mean() / np.square(error).mean() < 1.15
    assert np.abs(off.mean(axis=0) / off.std(axis=0)).max() * np.sqrt(400) < 4.5


def test_consistent_where_f_is_no_polynomial() -> None:
    """cos: from 4096 pairs within 4.5 standard errors of the closed form, which is 90 of them."""
    b = np.linspace(0.3, -0.9, DIM)
    truth = Cosine(b).mean_gradient(MEAN, np.full(DIM, 0.8))
    for sampler in (Gaussian(), Antithetic()):
        found = slope(Cosine(b).f, population(sampler, 8192, scale=0.8))
        assert np.abs((found.mean - truth) / found.mean_stderr).max() < 4.5
        assert np.linalg.norm(truth / found.mean_stderr) > 90.0


def test_central_differences() -> None:
    """E22: exact on a quadratic with 2d rows; with fewer, (d / k - 1) |grad|^2 of variance and no bias."""
    f = polynomial(8)
    a, score = f.grad(np.resize(MEAN, 8)), Score(NoBaseline())

    def estimates(n: int, count: int) -> Array:
        several = [population(Antithetic(Coordinates()), n, 8, 0.01, g) for g in range(count)]
        return np.array([score.estimate(p, Evals(f.f(p.rows())), ScoreState(()))[0].mean for p in several])

    assert np.abs(estimates(16, 5) - a).max() < 1e-6
    found = estimates(6, 1000)
    assert near(np.square(found - a).sum(axis=1) / (a @ a), 8 / 3 - 1.0)
    assert np.abs(found.mean(axis=0) - a).max() < 5.0 * found.std(axis=0).max() / np.sqrt(1000)
    assert np.abs(means(f.f, Antithetic(Coordinates()), 16, 8, 5) - a).max() < 1e-12
