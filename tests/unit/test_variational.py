"""fit_gaussian against closed forms, and against the best Gaussian by quadrature and scipy where there is none."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

import esopt

Array = NDArray[np.float64]

PRECISION = np.array([[2.0, 1.0, -0.5], [1.0, 3.0, 0.4], [-0.5, 0.4, 0.8]])
MEAN = np.array([1.0, -2.0, 0.5])
LOG_INTEGRAL = 1.5 * np.log(2.0 * np.pi) - 0.5 * np.linalg.slogdet(PRECISION)[1]


def gaussian(x: Array) -> float:
    return float(-0.5 * (x - MEAN) @ PRECISION @ (x - MEAN))


def slope(x: Array) -> Array:
    return -PRECISION @ (x - MEAN)


def curvature(x: Array) -> Array:
    return -PRECISION


def product(x: Array, v: Array) -> Array:
    return -PRECISION @ v


DERIVATIVES: dict[str, dict[str, Any]] = {
    "hess": {"grad": slope, "hess": curvature},
    "hvp": {"grad": slope, "hvp": product},
    "grad": {"grad": slope},
    "values": {},
}


def distance(fit: esopt.GaussianFit, mean: Array, cov: Array) -> float:
    """KL of two Gaussians that are close, to second order: 1/2 |L^-1 dm|^2 + 1/4 |L^-1 dC L^-T|^2."""
    inverse = np.linalg.inv(np.linalg.cholesky(cov))
    own = fit.cov if fit.cov.ndim == 2 else np.diag(fit.cov)
    change = inverse @ own @ inverse.T - np.eye(len(cov))
    return float(0.5 * np.square(inverse @ (fit.mean - mean)).sum() + 0.25 * np.square(change).sum())


@pytest.mark.parametrize("sigma", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("known", DERIVATIVES)
def test_a_gaussian_is_found_from_any_start(known: str, sigma: float) -> None:
    fit = esopt.fit_gaussian(gaussian, [5.0, 5.0, 5.0], sigma=sigma, seed=1, **DERIVATIVES[known])

    assert fit.converged, fit.reason
    bound = 1e-20 if known == "hess" else 1e-3
    assert distance(fit, MEAN, np.linalg.inv(PRECISION)) < bound
    assert fit.elbo == pytest.approx(LOG_INTEGRAL, abs=1e-10 if known == "hess" else 2e-3)
    assert abs(fit.elbo - LOG_INTEGRAL) < 4.0 * fit.elbo_stderr + 2e-3
    np.testing.assert_allclose(fit.factor @ fit.factor.T, fit.cov, rtol=1e-12)
    assert (np.diag(fit.factor) > 0.0).all()
    assert (np.triu(fit.factor, 1) == 0.0).all()


@pytest.mark.parametrize("known", DERIVATIVES)
def test_a_diagonal_fit_has_the_precision_of_each_coordinate(known: str) -> None:
    """The diagonal Gaussian of the least KL has variances 1 / P_ii, not those of the marginals."""
    fit = esopt.fit_gaussian(gaussian, np.zeros(3), full=False, seed=1, **DERIVATIVES[known])

    best = np.diag(1.0 / np.diag(PRECISION))
    lost = 0.5 * (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1])
    assert fit.cov.shape == (3,)
    assert distance(fit, MEAN, best) < 5e-3
    assert abs(fit.elbo - (LOG_INTEGRAL - lost)) < 4.0 * fit.elbo_stderr


def test_gradients_alone_find_sigmas_from_1e_minus_2_to_1e2() -> None:
    """D3 with Bonnet, the gradient-only form (IVON's)."""
    precisions = np.logspace(-4.0, 4.0, 20)
    fit = esopt.fit_gaussian(
        lambda x: -0.5 * precisions @ (x * x), np.ones(20), grad=lambda x: -precisions * x, full=False, sigma=0.3
    )

    assert fit.converged
    np.testing.assert_allclose(fit.cov * precisions, 1.0, atol=3e-3)
    assert (np.abs(fit.mean) * np.sqrt(precisions) < 1e-3).all()
    assert fit.evaluations < 3000


def test_conjugate_linear_regression() -> None:
    """Posterior and evidence of y = X w + noise, w ~ N(0, I / a), in closed form (Bishop 2006, section 3.5)."""
    n, d, noise, a = 40, 4, 0.3, 2.0
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, d))
    y = x @ np.array([1.0, -0.5, 0.0, 2.0]) + noise * rng.normal(size=n)
    precision = a * np.eye(d) + x.T @ x / noise**2
    mean = np.linalg.solve(precision, x.T @ y) / noise**2
    marginal = noise**2 * np.eye(n) + x @ x.T / a
    evidence = -0.5 * (y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(2.0 * np.pi * marginal)[1])
    constant = -0.5 * n * np.log(2.0 * np.pi * noise**2) + 0.5 * d * np.log(a / (2.0 * np.pi))

    fit = esopt.fit_gaussian(
        lambda w: constant - 0.5 * np.square(y - x @ w).sum() / noise**2 - 0.5 * a * w @ w,
        np.zeros(d),
        grad=lambda w: x.T @ (y - x @ w) / noise**2 - a * w,
        hess=lambda w: -precision,
    )

    np.testing.assert_allclose(fit.mean, mean, atol=1e-10)
    np.testing.assert_allclose(fit.cov, np.linalg.inv(precision), rtol=1e-8)
    assert fit.elbo == pytest.approx(evidence, abs=1e-8)


class Logistic(NamedTuple):
    """Bayesian logistic regression with labels in the signs of the rows, and prior N(0, 4)."""

    rows: Array

    def f(self, w: Array) -> float:
        return float(-np.logaddexp(0.0, -self.rows @ w).sum() - 0.125 * w @ w)

    def grad(self, w: Array) -> Array:
        return self.rows.T @ (1.0 / (1.0 + np.exp(self.rows @ w))) - 0.25 * w

    def hess(self, w: Array) -> Array:
        p = 1.0 / (1.0 + np.exp(-self.rows @ w))
        return -(self.rows * (p * (1.0 - p))[:, None]).T @ self.rows - 0.25 * np.eye(w.size)

    def elbo(self, mean: Array, factor: Array) -> float:
        """By one-dimensional quadrature: rows @ w is normal."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        deviations = np.sqrt(np.square(self.rows @ factor).sum(axis=1))
        margins = (self.rows @ mean)[:, None] + deviations[:, None] * nodes
        likelihood = -(np.logaddexp(0.0, -margins) @ weights).sum() / weights.sum()
        return likelihood - 0.125 * (mean @ mean + np.square(factor).sum()) + entropy(factor)


def entropy(factor: Array) -> float:
    return float(np.log(np.abs(np.diag(factor))).sum() + 0.5 * len(factor) * np.log(2.0 * np.pi * np.e))


def best(elbo: Any, dim: int, full: bool, start: Array | None = None) -> tuple[float, Array, Array]:
    """The largest ELBO over mean and factor that BFGS finds, and where."""
    lower = np.tril_indices(dim) if full else np.diag_indices(dim)

    def split(packed: Array) -> tuple[Array, Array]:
        factor = np.zeros((dim, dim))
        factor[lower] = packed[dim:]
        factor[np.diag_indices(dim)] = np.exp(np.diag(factor))
        return packed[:dim], factor

    packed = np.zeros(dim + len(lower[0])) if start is None else start
    found = minimize(lambda p: -elbo(*split(p)), packed, method="BFGS", options={"gtol": 1e-7})
    return -float(found.fun), *split(found.x)


@cache
def logistic(full: bool) -> tuple[Logistic, tuple[float, Array, Array]]:
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(100, 4)), np.array([1.5, -2.0, 0.5, 0.0])
    signs = np.where(rng.random(100) < 1.0 / (1.0 + np.exp(-x @ w)), 1.0, -1.0)
    model = Logistic(x * signs[:, None])
    return model, best(model.elbo, 4, full)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("known", DERIVATIVES)
def test_logistic_regression(known: str, full: bool) -> None:
    model, (elbo, mean, factor) = logistic(full)
    given = {
        "hess": {"grad": model.grad, "hess": model.hess},
        "hvp": {"grad": model.grad, "hvp": lambda w, v: model.hess(w) @ v},
        "grad": {"grad": model.grad},
        "values": {},
    }[known]

    fit = esopt.fit_gaussian(model.f, np.full(4, 3.0), full=full, seed=4, **given)

    found = model.elbo(fit.mean, fit.factor if full else np.diag(fit.factor))
    assert fit.converged
    assert elbo - 2e-3 < found <= elbo + 1e-9
    assert abs(fit.elbo - found) < 4.0 * fit.elbo_stderr
    assert distance(fit, mean, factor @ factor.T) < 4e-3


def banana(x: Array) -> float:
    return float(-0.125 * x[0] ** 2 - 0.5 * (x[1] - 0.5 * x[0] ** 2 + 1.0) ** 2)


def banana_slope(x: Array) -> Array:
    r = x[1] - 0.5 * x[0] ** 2 + 1.0
    return np.array([-0.25 * x[0] + r * x[0], -r])


def banana_curvature(x: Array) -> Array:
    r = x[1] - 0.5 * x[0] ** 2 + 1.0
    return np.array([[-0.25 + r - x[0] ** 2, x[0]], [x[0], -1.0]])


def banana_elbo(mean: Array, factor: Array) -> float:
    """Exact: the density is the exponential of a polynomial of degree 4."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    x = mean[:, None] + factor @ np.array(np.meshgrid(nodes, nodes)).reshape(2, -1)
    return float(np.outer(weights, weights).reshape(-1) @ banana_rows(x)) / float(weights.sum() ** 2) + entropy(factor)


def banana_rows(x: Array) -> Array:
    return np.array([banana(column) for column in x.T])


@pytest.mark.parametrize("known", ["hess", "grad"])
@pytest.mark.parametrize(("x0", "sigma"), [((0.0, 0.0), 1.0), ((4.0, -6.0), 0.1), ((3.0, 3.0), 10.0)])
def test_banana(known: str, x0: tuple[float, float], sigma: float) -> None:
    """A Hessian that is indefinite along the way, and no Gaussian: as good as the best of several starts."""
    starts = [np.array([m, -0.5, 0.0, b, 0.0]) for m in (-1.0, 0.3, 1.0) for b in (-0.5, 0.2)]
    reference = max(best(banana_elbo, 2, True, start)[0] for start in starts)
    given = {"grad": banana_slope} | ({"hess": banana_curvature} if known == "hess" else {})

    fit = esopt.fit_gaussian(banana, x0, sigma=sigma, **given)

    found = banana_elbo(fit.mean, fit.factor)
    assert reference - 5e-3 < found <= reference + 1e-9
    assert abs(fit.elbo - found) < 4.0 * fit.elbo_stderr


def test_equal_arguments_give_equal_bits_and_other_seeds_do_not() -> None:
    model, _ = logistic(True)
    one, again, other = (
        esopt.fit_gaussian(model.f, np.zeros(4), grad=model.grad, generations=5, seed=seed) for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(one.cov, again.cov)
    np.testing.assert_array_equal(one.history, again.history)
    assert one.elbo == again.elbo != other.elbo
    assert not one.converged
    assert "budget" in one.reason
    assert len(one.history) == one.generations <= 5


def test_an_objective_is_maximised_in_compiled_code_and_in_its_own_shape() -> None:
    @numba.njit
    def f(x: Any) -> Any:
        return -0.5 * ((x - 1.0) ** 2).sum()

    @numba.njit
    def grad(x: Any) -> Any:
        return 1.0 - x

    plain = esopt.fit_gaussian(f.py_func, np.zeros((2, 2)), grad=grad.py_func)
    compiled = esopt.fit_gaussian(esopt.Objective(f, grad=grad, shape=(2, 2)), np.zeros((2, 2)))

    assert compiled.mean.shape == (2, 2)
    assert compiled.cov.shape == (4, 4)
    np.testing.assert_allclose(compiled.mean, 1.0, atol=1e-2)
    np.testing.assert_allclose(compiled.cov, plain.cov, rtol=1e-8)


def test_a_noisy_density_takes_seeds() -> None:
    """A likelihood from random parts of the data, as unbiased estimates of it are."""

    def f(x: Array, seed: int) -> float:
        return gaussian(x) + float(np.random.default_rng(seed).normal() * x[0])

    def grad(x: Array, seed: int) -> Array:
        return slope(x) + np.random.default_rng(seed).normal() * np.eye(3)[0]

    fit = esopt.fit_gaussian(f, np.zeros(3), grad=grad, seeded=True, tolerance=5e-3)

    assert fit.converged
    assert distance(fit, MEAN, np.linalg.inv(PRECISION)) < 1e-2


def test_infinite_densities_are_counted_and_left_out() -> None:
    """A Gaussian cut off at 3 sigma: what is outside is left out of the search, and no Gaussian has a finite ELBO."""

    def cut(x: Array) -> float:
        return -0.5 * float(x @ x) if x[0] < 3.0 else -np.inf

    fit = esopt.fit_gaussian(cut, np.zeros(2), grad=lambda x: -x, final_evaluations=4000)

    assert fit.failures["infinite"] > 0
    assert "infinite" in str(fit)
    assert np.abs(fit.mean).max() < 0.1
    assert fit.elbo == -np.inf
    assert np.isnan(fit.elbo_stderr)
    assert not fit.converged
    assert re.fullmatch(r"the density is zero at [1-9]\d? of 4000 final candidates: .*", fit.reason)


def test_no_bound_is_claimed_where_the_density_is_zero() -> None:
    """exp(-x - y) on the positive quadrant has the integral 1; what is finite alone would average to more than 0."""
    fit = esopt.fit_gaussian(lambda x: -float(x.sum()) if (x > 0).all() else -np.inf, np.full(2, 3.0), sigma=0.2)

    assert fit.elbo == -np.inf
    assert not fit.converged
    assert "density is zero" in str(fit)


@pytest.mark.parametrize("wrong", [{"grad": lambda x: PRECISION @ x}, {"grad": slope, "hess": lambda x: PRECISION}])
def test_wrong_derivatives_are_not_a_success(wrong: dict[str, Any]) -> None:
    fit = esopt.fit_gaussian(gaussian, np.zeros(3), generations=100, **wrong)

    assert not fit.converged
    assert np.isfinite(fit.cov).all()


def test_a_flat_density_has_no_fit() -> None:
    fit = esopt.fit_gaussian(lambda x: -0.5 * x[0] ** 2, np.zeros(2), grad=lambda x: np.array([-x[0], 0.0]))

    assert not fit.converged
    assert np.isfinite(fit.cov).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_easy_densities_end_within_the_budget(seed: int) -> None:
    """From values: the banana, which needs many candidates; from gradients: Laplace, which has a kink."""
    curved = esopt.fit_gaussian(
        lambda x: -0.5 * x[:, 0] ** 2 - 5.0 * (x[:, 1] - x[:, 0] ** 2) ** 2, np.zeros(2), seed=seed, vectorized=True
    )
    kinked = esopt.fit_gaussian(
        lambda x: -np.abs(x).sum(axis=1), np.ones(5), grad=lambda x: -np.sign(x), seed=seed, vectorized=True
    )

    for fit in (curved, kinked):
        assert fit.converged, fit.reason
        assert fit.generations < 600
    # The standard deviation s of the best Gaussian for exp(-|x|): log s - sqrt(2 / pi) s is largest.
    np.testing.assert_allclose(kinked.cov, 0.5 * np.pi * np.eye(5), atol=0.1)


def test_it_prints_as_a_table() -> None:
    text = str(esopt.fit_gaussian(gaussian, np.zeros(3), **DERIVATIVES["hess"]))

    assert "1 -2 0.5" in text
    assert "the ELBO does not change any more" in text


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"hess": curvature}, ValueError, "without grad"),
        ({"n": 7}, ValueError, "multiple of 2 and at least 4"),
        ({"n": 2}, ValueError, "multiple of 2 and at least 4"),
        ({"rate": 2.0}, ValueError, r"rate must be in \(0, 1\]"),
        ({"rate": -1.0}, ValueError, r"rate must be in \(0, 1\]"),
        ({"tolerance": 0.0}, ValueError, "tolerance must be a positive number"),
        ({"generations": 0}, ValueError, "generations must be at least 1"),
        ({"sigma": np.ones(2)}, ValueError, "2 entries for x0 of size 3"),
        ({"estimator": esopt.Score()}, ValueError, "needs the gradient of the scale"),
        ({"estimator": esopt.Bonnet}, TypeError, "must be an instance"),
        ({"seed": -1}, ValueError, "seed must be in"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        esopt.fit_gaussian(gaussian, np.zeros(3), **settings)


def test_an_objective_brings_its_own_derivatives() -> None:
    with pytest.raises(TypeError, match=r"both an Objective and grad. Set them there"):
        esopt.fit_gaussian(esopt.Objective(gaussian), np.zeros(3), grad=slope)


def test_a_density_that_is_never_finite_is_an_error() -> None:
    with pytest.raises(esopt.EvaluationError):
        esopt.fit_gaussian(lambda x: np.nan, np.zeros(3))


def test_a_fit_is_frozen() -> None:
    fit = esopt.fit_gaussian(gaussian, np.zeros(3), **DERIVATIVES["hess"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.elbo = 0.0  # type: ignore[misc]
