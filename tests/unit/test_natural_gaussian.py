"""One natural-gradient step for a Gaussian: exact on Gaussians, unbiased beside the entropy, always a covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

import esopt
from esopt.strategies._log_normal import add_log_normal, log_normal
from esopt.strategies.natural_gaussian import _kept_positive
from tests.reference import quadrature
from tests.reference.oracles import Polynomial

Array = NDArray[np.float64]

D = 3
FACTOR = np.array([[0.9, 0.0, 0.2], [-0.4, 0.7, 0.0], [0.3, -0.2, 0.5]])
SIGMAS = np.array([0.7, 1.1, 0.4])
HESSIAN = np.array([[1.5, 0.4, -0.3], [0.4, 0.6, 0.2], [-0.3, 0.2, 0.9]])
TARGET = np.array([1.0, -2.0, 0.5])


def covariance(scale: Array) -> Array:
    return np.diag(np.square(scale)) if scale.ndim == 1 else scale @ scale.T


def quadratic(population: esopt.Population, hessian: Array) -> esopt.Evals:
    """The target -log N(TARGET, hessian^-1) up to a constant, with every derivative."""
    away = population.rows() - TARGET
    hvps = None if population.probes is None else population.probes.rows() @ hessian
    values = 0.5 * np.einsum("ij,jk,ik->i", away, hessian, away)
    return esopt.Evals(values, away @ hessian, hessians=np.tile(hessian, (len(away), 1, 1)), hvps=hvps)


def strategy(estimator: Any, **settings: Any) -> esopt.NaturalGaussian:
    settings = {"n": 8, "temperature": 1.0, "mean_rate": 1.0, "scale_rate": 1.0, **settings}
    return esopt.NaturalGaussian(estimator=estimator, **settings)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 200.0, FACTOR, 50.0 * FACTOR])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_one_full_step_with_hessians_is_exact_on_a_gaussian(sigma: Any, temperature: float) -> None:
    natural = strategy(esopt.Price(), sigma=sigma, full=True, temperature=temperature)
    state = natural.init(np.array([5.0, 3.0, -4.0]), seed=1)

    state, _ = natural.tell(state, quadratic(natural.ask(state), HESSIAN))

    np.testing.assert_allclose(state.mean, TARGET, rtol=1e-10)
    np.testing.assert_allclose(covariance(state.scale), temperature * np.linalg.inv(HESSIAN), rtol=1e-10)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 200.0, SIGMAS])
def test_one_full_step_is_exact_on_independent_coordinates(sigma: Any) -> None:
    natural, hessian = strategy(esopt.Price(), sigma=sigma), np.diag(np.diag(HESSIAN))
    state = natural.init(np.array([5.0, 3.0, -4.0]), seed=1)

    state, _ = natural.tell(state, quadratic(natural.ask(state), hessian))

    np.testing.assert_allclose(state.mean, TARGET, rtol=1e-10)
    np.testing.assert_allclose(state.scale, 1.0 / np.sqrt(np.diag(HESSIAN)), rtol=1e-10)


def test_half_a_step_halves_the_way_of_the_precision() -> None:
    natural = strategy(esopt.Price(), sigma=FACTOR, scale_rate=0.5, mean_rate=0.25)
    start = natural.init(np.zeros(D), seed=1)

    state, _ = natural.tell(start, quadratic(natural.ask(start), HESSIAN))

    precision = 0.5 * np.linalg.inv(covariance(FACTOR)) + 0.5 * HESSIAN
    np.testing.assert_allclose(np.linalg.inv(covariance(state.scale)), precision, rtol=1e-10)
    np.testing.assert_allclose(state.mean, 0.25 * np.linalg.solve(precision, HESSIAN @ TARGET), rtol=1e-10)


@pytest.mark.parametrize(
    "estimator",
    [
        esopt.Score(with_scale=True),
        esopt.Score(esopt.AtMean(), with_scale=True),
        esopt.Bonnet(with_scale=True),
        esopt.Price(),
        esopt.Price(esopt.Rademacher()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("full", [True, False])
def test_at_the_answer_nothing_moves_and_the_value_is_the_evidence(estimator: Any, full: bool) -> None:
    hessian = HESSIAN if full else np.diag(np.diag(HESSIAN))
    factor = np.linalg.cholesky(np.linalg.inv(hessian))
    natural = strategy(estimator, sigma=factor if full else np.diag(factor), sampler=esopt.Gaussian(), n=24)
    start = natural.init(TARGET, seed=2)

    state, info = natural.tell(start, quadratic(natural.ask(start), hessian))

    log_evidence = 0.5 * D * np.log(2.0 * np.pi) - 0.5 * np.linalg.slogdet(hessian)[1]
    assert info.gradient is not None
    assert info.gradient.value == pytest.approx(-log_evidence, abs=1e-12)
    assert info.gradient.value_stderr < 1e-12
    np.testing.assert_allclose(state.mean, TARGET, atol=1e-12)
    np.testing.assert_allclose(covariance(state.scale), np.linalg.inv(hessian), atol=1e-12)


@pytest.mark.parametrize("scale", [SIGMAS[:2], FACTOR[:2, :2]], ids=["diagonal", "full"])
@pytest.mark.parametrize("kind", ["Score", "Bonnet", "Price"])
def test_the_density_of_q_adds_the_gradient_of_the_entropy_and_nothing_else(scale: Array, kind: str) -> None:
    cubic = Polynomial(1.9, np.array([-1.0, 0.7]), HESSIAN[:2, :2], np.array([0.8, -1.2]))
    at, tau = np.array([0.5, -0.4]), 0.7
    estimator = {
        "Score": esopt.Score(esopt.NoBaseline(), with_scale=True),
        "Bonnet": esopt.Bonnet(with_scale=True),
        "Price": esopt.Price(),
    }[kind]

    def estimate(eps: Array, weight: float) -> Array:
        population = esopt.Population(at, scale, esopt.Given(eps))
        x = population.rows()
        hessians = cubic.q + np.einsum("ij,jk->ijk", cubic.t * x, np.eye(2))
        evals = add_log_normal(population, esopt.Evals(cubic.f(x), cubic.grad(x), hessians=hessians), weight)
        gradient, _ = estimator.estimate(population, evals, estimator.init(2))
        return np.concatenate([gradient.mean, np.asarray(gradient.scale).reshape(-1), [gradient.value]])

    with_entropy, plain = (quadrature.moments(lambda e, w=w: estimate(e, w), 1, 2, 6).mean for w in (tau, 0.0))

    entropy = 1.0 + np.log(2.0 * np.pi) + 0.5 * np.linalg.slogdet(covariance(scale))[1]
    by_scale = np.ones(2) if scale.ndim == 1 else 0.5 * np.eye(2).reshape(-1)
    expected = plain - tau * np.concatenate([np.zeros(2), by_scale, [entropy]])
    np.testing.assert_allclose(with_entropy, expected, atol=1e-12)


def test_log_normal_is_the_density_of_every_row() -> None:
    noise = esopt.Antithetic().noise(esopt.Key(3), 6, D)
    extra = np.array([[0.0, 0.0, 0.0], [2.0, -1.0, 4.0]])
    for scale in (SIGMAS, FACTOR, -FACTOR):
        population = esopt.Population(TARGET, scale, noise).with_extra("own", extra)
        expected = multivariate_normal(TARGET, covariance(np.asarray(scale))).logpdf(population.rows())

        np.testing.assert_allclose(log_normal(population), expected, rtol=1e-10)


def test_products_with_probes_lose_those_of_the_density() -> None:
    population = esopt.Price(esopt.Rademacher()).prepare(
        esopt.Population(TARGET, FACTOR, esopt.Antithetic().noise(esopt.Key(3), 4, D)), ()
    )
    assert population.probes is not None
    probes = population.probes.rows().astype(np.float64)
    precision = np.linalg.inv(covariance(FACTOR))
    zero = esopt.Evals(np.zeros(4), np.zeros((4, D)), hvps=np.zeros((4, D)), jvps=np.zeros(4))

    found = add_log_normal(population, zero, 2.0)

    gradients = -2.0 * (population.rows() - TARGET) @ precision
    np.testing.assert_allclose(found.grads, gradients, atol=1e-10)
    np.testing.assert_allclose(found.hvps, -2.0 * probes @ precision, atol=1e-10)
    np.testing.assert_allclose(found.jvps, np.einsum("ij,ij->i", gradients, probes), atol=1e-10)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("size", [1.0, 1e10])
def test_a_wildly_indefinite_hessian_leaves_a_covariance(full: bool, size: float) -> None:
    wild = size * np.array([[-3.0, 5.0, 0.0], [5.0, 1.0, -7.0], [0.0, -7.0, -2.0]])
    natural = strategy(esopt.Price(), sigma=0.5, full=full, n=2)
    state = natural.init(np.zeros(D), seed=1)
    for _ in range(3):
        evals = quadratic(natural.ask(state), wild)
        before = covariance(state.scale)
        state, _ = natural.tell(state, evals)
        after = covariance(state.scale)

        assert np.linalg.eigvalsh(after).min() > 0.0
        # With one block there is no standard error: a variance grows by 20 at most.
        assert np.linalg.eigvalsh(20.0 * before - after).min() > -1e-9 * np.abs(after).max()


def test_eigenvalues_are_kept_where_they_are_sure_and_positive_elsewhere() -> None:
    steps = np.array([-1e12, -50.0, -1.0, -0.95, -0.9, -0.5, 0.0, 3.0])
    for error, floor in ((0.0, 1e-6), (0.03, 0.03), (5.0, 0.1), (np.nan, 0.1)):
        found = _kept_positive(steps, error)
        sure = 1.0 + steps >= floor

        np.testing.assert_array_equal(found[sure], 1.0 + steps[sure])
        assert (found[~sure] >= 0.5 * floor).all()
        assert (found[~sure] < floor).all()
        edge = np.array([floor - 1.0 - 1e-7 * floor, floor - 1.0 + 1e-7 * floor])
        np.testing.assert_allclose(np.diff(_kept_positive(edge, error)), np.diff(edge), rtol=1e-3)


def test_scale_and_shape_have_rates_of_their_own() -> None:
    f = esopt.Evals(np.zeros(8), np.zeros((8, D)), hessians=np.tile(np.diag([3.0, 1.0, -1.0]), (8, 1, 1)))
    for full in (True, False):
        natural = strategy(esopt.Price(), sigma=1.0, full=full, temperature=0.0, scale_rate=0.4, shape_rate=0.1)
        state, _ = natural.tell(natural.init(np.zeros(D), 1), f)

        expected = np.exp(-0.5 * (0.4 * 1.0 + 0.1 * np.array([2.0, 0.0, -2.0])))
        np.testing.assert_allclose(np.sqrt(np.diag(covariance(state.scale))), expected, rtol=1e-12)


def test_stop_says_what_is_wrong() -> None:
    natural = strategy(esopt.Price(), full=True)
    fresh = natural.init(np.zeros(2), seed=0)
    replaced = {
        "diverged": (np.array([np.nan, 0.0]), np.eye(2)),
        "scale": (np.zeros(2), np.full((2, 2), np.nan)),
        "condition": (np.zeros(2), np.diag([1.0, 1e-14])),
    }

    assert natural.stop(fresh) == {}
    for reason, (mean, scale) in replaced.items():
        state = type(fresh)(0, 1, mean, scale, fresh.estimator)
        assert list(natural.stop(state)) == [reason]
    assert list(natural.stop(type(fresh)(0, 1, np.ones(2), np.full(2, 1e-30), ()))) == ["scale"]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_derivatives_that_are_not_finite_are_left_out(bad: float) -> None:
    natural = strategy(esopt.Price(), full=True)
    state = natural.init(np.zeros(D), seed=1)
    evals = quadratic(natural.ask(state), HESSIAN)
    assert evals.hessians is not None
    evals.hessians[0] = bad
    evals.values[-1] = bad

    state, info = natural.tell(state, evals)

    np.testing.assert_allclose(state.mean, TARGET, rtol=1e-10)
    assert info.failures == ({"infinite": 1} if np.isinf(bad) else {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": esopt.Score()}, "needs the gradient of the scale"),
        ({"temperature": -1.0}, "temperature must be 0 or a positive number"),
        ({"temperature": 1.0, "scale_rate": 1.5}, "scale_rate must be at most 1"),
        ({"temperature": 1.0, "shaping": esopt.CenteredRanks()}, "weighs them against the entropy"),
        ({"estimator": esopt.Price(), "shaping": esopt.CenteredRanks()}, "the estimator needs them"),
        ({"n": 7}, "positive multiple of 2"),
        ({"mean_rate": 0.0}, "mean_rate must be a positive number"),
        ({"share": "all"}, "share must be one of"),
        ({"sigma": -1.0}, "sigma must be positive"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        esopt.NaturalGaussian(**settings)


def test_ranks_are_the_default_without_a_temperature_only() -> None:
    values = np.array([3.0, -1.0, 0.0, 7.0])
    runs = []
    for f in (values, np.exp(values)):
        natural = esopt.NaturalGaussian(n=4)
        runs.append(natural.tell(natural.init(np.zeros(2), 1), esopt.Evals(f))[0])

    np.testing.assert_array_equal(runs[0].mean, runs[1].mean)
    np.testing.assert_array_equal(runs[0].scale, runs[1].scale)


def test_sigma_decides_the_shape_of_the_covariance() -> None:
    starts = ((0.5, False, (3,)), (SIGMAS, False, (3,)), (SIGMAS, True, (3, 3)), (FACTOR, False, (3, 3)))
    for sigma, full, shape in starts:
        assert esopt.NaturalGaussian(sigma=sigma, full=full).init(np.zeros(3), 0).scale.shape == shape
