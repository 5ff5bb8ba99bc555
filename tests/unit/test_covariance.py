"""Sums of outer products for a factor of the covariance, Price and its errors, Gauss-Newton objectives."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

import esopt
from esopt import Bonnet, Evals, Given, Key, NoBaseline, Population, Price, Rademacher, Score
from esopt.estimators import _full
from esopt.noise import PROBE

DIM = 5


def normals(n: int, dim: int, seed: int = 1) -> np.ndarray:
    return esopt.Gaussian().noise(Key(seed), n, dim).rows().astype(np.float64)


FACTOR = np.eye(DIM) + 0.3 * normals(DIM, DIM, 9)


def noise(n: int, block: int, mirrored: bool) -> Given:
    rows = normals(n, DIM)
    if mirrored:
        rows[1::2] = -rows[::2]
    return Given(rows, block, mirrored, Key(3, 2))


def naive(terms: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of (n, ...) terms and its standard error over blocks."""
    means = terms.reshape(-1, block, *terms.shape[1:]).mean(axis=1)
    return means.mean(axis=0), means.std(axis=0, ddof=1) / np.sqrt(len(means))


def evals_of(population: Population) -> Evals:
    n, d = len(population), population.dim
    second = normals(n, d * d, 6).reshape(n, d, d)
    second = second + second.transpose(0, 2, 1)
    hvps = None if population.probes is None else np.einsum("ijk,ik->ij", second, population.probes.rows())
    return Evals(normals(n, 1, 4)[:, 0], normals(n, d, 5), hessians=second, hvps=hvps)


def expected(estimator: object, population: Population, evals: Evals) -> tuple[np.ndarray, np.ndarray]:
    """Terms of the mean, (n, d), and of the matrix, (n, d, d), row by row."""
    eps, values = population.noise.rows(), evals.values[:, None]
    if isinstance(estimator, Score):
        matrix = 0.5 * values[:, :, None] * (eps[:, :, None] * eps[:, None, :] - np.eye(DIM))
        return np.linalg.solve(FACTOR.T, (values * eps).T).T, matrix
    if isinstance(estimator, Bonnet):
        outer = (evals.grads @ FACTOR)[:, :, None] * eps[:, None, :]
        return evals.grads, 0.25 * (outer + outer.transpose(0, 2, 1))
    hessians = evals.hessians
    if population.probes is not None:
        outer = evals.hvps[:, :, None] * population.probes.rows()[:, None, :]
        hessians = 0.5 * (outer + outer.transpose(0, 2, 1))
    return evals.grads, 0.5 * FACTOR.T @ hessians @ FACTOR


ESTIMATORS = [Score(NoBaseline(), with_scale=True), Bonnet(with_scale=True), Price(), Price(Rademacher())]


@pytest.mark.parametrize("chunk", [1, 70, 2**18])
@pytest.mark.parametrize(("block", "mirrored"), [(1, False), (2, False), (2, True), (3, False), (4, True)])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["score", "bonnet", "price", "probes"])
def test_sums_are_those_of_small_matrices(estimator, block, mirrored, chunk, monkeypatch):
    monkeypatch.setattr(_full, "_CHUNK", chunk)
    state = estimator.init(DIM)
    population = estimator.prepare(Population(np.zeros(DIM), FACTOR, noise(24, block, mirrored)), state)
    evals = evals_of(population)
    found, _ = estimator.estimate(population, evals, state)

    for got, error, terms in zip(
        (found.mean, found.scale),
        (found.mean_stderr, found.scale_stderr),
        expected(estimator, population, evals),
        strict=True,
    ):
        mean, stderr = naive(terms, block)
        np.testing.assert_allclose(got, mean, atol=1e-13)
        np.testing.assert_allclose(error, stderr, atol=1e-13)


def test_many_dimensions_build_nothing_of_rows_times_matrices():
    import tracemalloc

    dim, n = 200, 400
    population = Population(np.zeros(dim), np.eye(dim), esopt.Antithetic().noise(Key(1), n, dim))
    evals = Evals(normals(n, 1)[:, 0], normals(n, dim, 2))
    for estimator in (Score(with_scale=True), Bonnet(with_scale=True)):
        estimator.estimate(population, evals, estimator.init(dim))
        tracemalloc.start()
        estimator.estimate(population, evals, estimator.init(dim))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < n * dim * dim * 8 / 8


def test_a_factor_agrees_with_the_diagonal_scale_it_is():
    sigma = np.array([0.4, 0.6, 0.9, 0.2, 1.1])
    rows = esopt.Antithetic().noise(Key(1), 64, DIM)
    for estimator in ESTIMATORS:
        state, found = estimator.init(DIM), []
        for scale in (sigma, np.diag(sigma)):
            population = estimator.prepare(Population(np.zeros(DIM), scale, rows), state)
            found.append(estimator.estimate(population, evals_of(population), state)[0])
        one, other = found
        np.testing.assert_allclose(other.mean, one.mean, rtol=1e-5, atol=1e-6)
        # 1/2 L^T H L has half of dJ/dlog sigma_i on its diagonal.
        np.testing.assert_allclose(2.0 * np.diag(other.scale), one.scale, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(2.0 * np.diag(other.scale_stderr), one.scale_stderr, rtol=1e-4)


def test_price_asks_for_what_it_needs():
    bare = Population(np.zeros(3), 0.5, esopt.Gaussian().noise(Key(7, 4), 6, 3))
    with_probes = Price(Rademacher()).prepare(bare, ())

    assert Price().prepare(bare, ()).needs == {"values", "grads", "hessians"}
    assert Price().prepare(bare, ()).probes is None
    assert with_probes.needs == {"values", "grads", "hvps"}
    assert with_probes.probes == Rademacher().noise(Key(7, 4, PROBE), 6, 3)
    assert Price(esopt.Gaussian()).prepare(bare, ()).probes.key.stream == PROBE


@pytest.mark.parametrize("kind", ["scalar", "vector", "factor"])
def test_price_drops_blocks_with_failed_derivatives(kind):
    scale = {"scalar": 0.5, "vector": np.full(DIM, 0.5), "factor": FACTOR}[kind]
    for estimator, name in ((Price(), "hessians"), (Price(Rademacher()), "hvps"), (Price(), "grads")):
        population = estimator.prepare(Population(np.zeros(DIM), scale, noise(12, 2, True)), ())
        evals = evals_of(population)
        failed = getattr(evals, name).copy()
        failed[5] = np.nan
        found, _ = estimator.estimate(population, replace(evals, **{name: failed}), ())
        assert found.blocks == 5
        assert np.isfinite(found.mean).all()
        assert np.isfinite(found.scale).all()


def test_hessians_almost_everywhere_miss_kinks_and_gradients_do_not():
    """J = E|x| has the curvature of the kink, 2 phi(0) / sigma at 0."""
    population = Population(np.zeros(1), 0.5, esopt.Gaussian().noise(Key(1), 4000, 1))
    x = population.rows()
    evals = Evals(np.abs(x[:, 0]), np.sign(x), hessians=np.zeros_like(x))
    wrong, _ = Price().estimate(population, evals, ())
    right, _ = Bonnet(with_scale=True).estimate(population, evals, ())

    assert (wrong.scale, wrong.scale_stderr) == (0.0, 0.0)
    assert abs(right.scale - np.sqrt(2.0 / np.pi)) < 4.0 * right.scale_stderr < 0.1


BARE = Population(np.zeros(2), 0.5, esopt.Gaussian().noise(Key(1), 4, 2))
GIVEN = Evals(np.zeros(4), np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("price", "population", "evals", "message"),
    [
        (Price(), BARE, Evals(np.zeros(4)), r"Price\(\) got no gradients. Pass grad="),
        (Price(), BARE, GIVEN, r"Price\(\) got no Hessians. Pass Objective.*hess=.*Bonnet\(with_scale=True\)"),
        (Price(Rademacher()), BARE, GIVEN, "no Hessian-vector products. Pass Objective.*hvp="),
        (
            Price(),
            replace(BARE, scale=np.eye(2)),
            replace(GIVEN, hessians=np.zeros((4, 2))),
            r"diagonals of Hessians, \(4, 2\), for a scale that is a factor. Pass full",
        ),
    ],
)
def test_what_price_misses_is_said(price, population, evals, message):
    with pytest.raises(ValueError, match=message):
        price.estimate(price.prepare(population, ()), evals, ())


def test_price_refuses_other_noise_and_probes_in_larger_blocks():
    for sampler in (esopt.Sphere(), Rademacher()):
        with pytest.raises(ValueError, match=r"needs rows that are N\(0, I\)"):
            Price().prepare(replace(BARE, noise=sampler.noise(Key(1), 4, 2)), ())
    with pytest.raises(ValueError, match="probes in blocks of 2 for a population in blocks of 1"):
        Price(esopt.Antithetic()).prepare(BARE, ())
    with pytest.raises(TypeError, match="Write Rademacher"):
        Price(Rademacher)


# ---- Gauss-Newton ---------------------------------------------------------------------------------------------------

TIMES = np.linspace(0.0, 1.0, 6)


def residuals(x, shift=0.0):
    return x[1] * np.exp(x[0] * TIMES) - 2.0 + shift


def jacobian(x, shift=0.0):
    rise = np.exp(x[0] * TIMES)
    return np.stack([x[1] * TIMES * rise, rise], axis=1)


def test_gauss_newton_is_half_the_squared_residuals():
    objective = pickle.loads(pickle.dumps(esopt.gauss_newton(residuals, jacobian, args=(0.3,))))
    x, v, step = np.array([0.4, 1.2]), np.array([0.7, -0.2]), 1e-6
    r, j = residuals(x, 0.3), jacobian(x, 0.3)
    slope = [(objective.f(x + e, 0.3) - objective.f(x - e, 0.3)) / (2 * step) for e in step * np.eye(2)]

    assert objective.f(x, 0.3) == pytest.approx(0.5 * r @ r, rel=1e-15)
    np.testing.assert_allclose(objective.grad(x, 0.3), slope, rtol=1e-8)
    np.testing.assert_allclose(objective.hess(x, 0.3), j.T @ j, rtol=1e-14)
    np.testing.assert_allclose(objective.hvp(x, v, 0.3), j.T @ (j @ v), rtol=1e-14)
    assert objective.jvp(x, v, 0.3) == pytest.approx(objective.grad(x, 0.3) @ v, rel=1e-14)


def test_gauss_newton_keeps_the_shape_of_x():
    objective = esopt.gauss_newton(
        lambda x, seed: x @ x.T, lambda x, seed: np.eye(6).reshape(6, 2, 3), seeded=True, shape=(2, 3)
    )
    plain = esopt.gauss_newton(lambda x: 3.0 * x, lambda x: 3.0 * np.eye(6).reshape(2, 3, 2, 3), shape=(2, 3))
    x = np.arange(6.0).reshape(2, 3)

    assert (objective.seeded, objective.shape) == (True, (2, 3))
    assert objective.hvp(x, x, 7).shape == (2, 3)
    np.testing.assert_array_equal(plain.grad(x), 9.0 * x)
    np.testing.assert_array_equal(plain.hess(x), 9.0 * np.eye(6))


def test_gauss_newton_says_what_is_wrong():
    with pytest.raises(TypeError, match="jacobian must be a function, got ndarray"):
        esopt.gauss_newton(residuals, np.eye(2))
    with pytest.raises(ValueError, match=r"returned shape \(2,\) for x of shape \(2,\)"):
        esopt.gauss_newton(residuals, lambda x: x).grad(np.ones(2))
    with pytest.raises(ValueError, match="6 residuals and a jacobian of 2 rows"):
        esopt.gauss_newton(residuals, lambda x: np.eye(2)).grad(np.ones(2))


def test_gauss_newton_leaves_out_the_curvature_of_the_residuals():
    """r = x^2 - 1: J^T J = 4 x^2, the Hessian is 6 x^2 - 2."""
    objective = esopt.gauss_newton(lambda x: x**2 - 1.0, lambda x: np.diag(2.0 * x))
    found = esopt.smoothed_hessian(objective, np.array([0.5]), sigma=0.2, n=2000)

    assert abs(found.mean[0, 0] - 4.0 * (0.25 + 0.04)) < 4.0 * found.stderr[0, 0] < 0.1
