"""Guided search: exact on quadrature nodes, the dense formulas, the map of the noise, and what it learns."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt import (
    Antithetic,
    AtMean,
    Evals,
    EvaluationError,
    Gaussian,
    Given,
    Guided,
    Key,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    OptimalScalar,
    Population,
    Score,
)
from esopt.estimators.guided import _orthonormal
from tests.reference import oracles, quadrature
from tests.statistical import exact

Array = NDArray[np.float64]
ALPHA = 0.3
DIRECTIONS = {1: np.array([[1.0]]), 2: np.array([[0.8], [-0.6]]), 3: np.array([[2.0, 1.0], [-1.0, 0.5], [0.5, 3.0]])}


def covariance(subspace: Array, alpha: float) -> Array:
    """S^2 as the theory has it, with trace d."""
    d, k = subspace.shape
    q = np.linalg.qr(subspace)[0]
    return np.asarray(alpha * np.eye(d) + (1.0 - alpha) * d / k * q @ q.T)


def root(square: Array) -> Array:
    values, vectors = np.linalg.eigh(square)
    return np.asarray(vectors * np.sqrt(values) @ vectors.T)


def prepare(guided: Guided, scale: Any, noise: Any, dim: int, state: Any = None) -> tuple[Population, Any]:
    state = guided.init(dim) if state is None else state
    return guided.prepare(Population(exact.mean(3)[:dim], scale, noise), state), state


def run(guided: Guided, problem: Any, kind: str, units: int, dim: int, q: int, *, pair: bool) -> Any:
    """Moments of the estimate, and of its squared standard errors, (2 d,)."""

    def estimate(eps: Array) -> Array:
        rows = np.stack([eps, -eps], axis=1).reshape(-1, dim) if pair else eps
        population, state = prepare(guided, exact.scale_of(kind, dim), Given(rows, 2 if pair else 1, pair), dim)
        g, _ = guided.estimate(population, Evals(problem.f(population.rows())), state)
        return np.concatenate([g.mean, np.square(g.mean_stderr) if units > 1 else np.zeros(dim)])

    return quadrature.moments(estimate, units, dim, q)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
@pytest.mark.parametrize(("units", "dim"), [(1, 1), (1, 2), (1, 3), (2, 2)])
def test_pairs(units: int, dim: int, kind: str, unbiased: bool) -> None:
    """E23 and E23b for each coordinate, and their totals; the standard errors expect them.

    With c = S D a and M = S^-1 or S / d an estimate is D^-1 M (c.eps) eps, E (c.eps)^2 eps eps' = |c|^2 I + 2 c c'.
    """
    problem, sigma = exact.quadratic(dim), exact.sigma_of(kind, dim)
    guided = Guided(DIRECTIONS[dim], alpha=ALPHA, unbiased=unbiased)
    found = run(guided, problem, kind, units, dim, 5 if units == 1 else 4, pair=True)
    square = covariance(DIRECTIONS[dim], ALPHA)
    local = sigma * problem.grad(exact.mean(dim))
    c = root(square) @ local
    m = np.linalg.inv(root(square)) if unbiased else root(square) / dim
    truth = m @ c / sigma
    variance = (c @ c * np.diag(m @ m) + np.square(m @ c)) / sigma**2 / units

    assert np.trace(square) == pytest.approx(dim)
    assert exact.agree(found.mean[:dim], truth, np.sqrt(found.square[:dim]))
    assert exact.agree(found.variance[:dim], variance, found.square[:dim])
    if units > 1:
        assert exact.agree(found.mean[dim:], variance, found.square[:dim])
    if kind == "scalar":
        a = local / sigma
        if unbiased:
            assert truth == pytest.approx(a, rel=1e-12)
            total = (a @ square @ a) * np.trace(np.linalg.inv(square)) + a @ a
        else:
            published = square / dim  # trace one
            assert truth == pytest.approx(published @ a, rel=1e-12)
            total = (a @ published @ a) * np.trace(published) + np.square(published @ a).sum()
        assert units * variance.sum() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
@pytest.mark.parametrize("baseline", [NoBaseline(), LeaveOneOut(), AtMean()], ids=lambda b: type(b).__name__)
def test_rows_are_unbiased_on_a_cubic(baseline: Any, kind: str) -> None:
    """The third derivatives see the covariance D S^2 D: E grad = grad f + 1/2 t_i (D S^2 D)_ii."""
    problem, dim = exact.cubic(2), 2
    sigma = exact.sigma_of(kind, dim)
    guided = Guided(DIRECTIONS[dim], alpha=ALPHA, baseline=baseline)
    found = run(guided, problem, kind, 2, dim, 4, pair=False)
    spread = np.diag(covariance(DIRECTIONS[dim], ALPHA)) * sigma**2

    truth = problem.grad(exact.mean(dim)) + 0.5 * problem.t * spread
    assert exact.agree(found.mean[:dim], truth, np.sqrt(found.square[:dim]))


@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_rows_have_the_variance_of_a_score_in_their_own_coordinates(beta: float) -> None:
    """In one direction of the whole space S is 1 and Guided is Score: E1, and errors that expect it."""
    problem, sigma = exact.quadratic(1), exact.sigma_of("scalar", 1)
    problem = oracles.Polynomial(
        problem.c - problem.smoothed(exact.mean(1), sigma) + beta, problem.b, problem.q, problem.t
    )
    found = run(Guided(DIRECTIONS[1], alpha=ALPHA, baseline=NoBaseline()), problem, "scalar", 2, 1, 5, pair=False)
    _, a, h, _ = problem.at(exact.mean(1), sigma)
    variance = oracles.score_mean(a, h, beta) / sigma**2 / 2

    assert exact.agree(found.variance[:1], variance, found.square[:1])
    assert exact.agree(found.mean[1:], variance, found.square[:1])


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("scale", [0.7, np.linspace(0.3, 1.2, 7)], ids=["scalar", "diagonal"])
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_estimate_and_errors_are_those_of_the_dense_formulas(k: int, block: int, scale: Any, unbiased: bool) -> None:
    """O(d k) against d x d matrices and the sums of every block, with a failed block."""
    d, n = 7, 12
    rng = np.random.default_rng(k)
    subspace, eps, values = rng.normal(size=(d, k)), rng.normal(size=(n, d)), rng.normal(size=n)
    guided = Guided(subspace, alpha=ALPHA, unbiased=unbiased, baseline=NoBaseline())
    state = guided.init(d)
    population = guided.prepare(Population(np.zeros(d), scale, Given(eps, block)), state)
    s = root(covariance(subspace, ALPHA))
    np.testing.assert_allclose(population.rows(), scale * (eps @ s), rtol=1e-11, atol=1e-12)

    values[4] = np.nan
    g, after = guided.estimate(population, Evals(values), state)
    m = np.linalg.inv(s) if unbiased else s / d
    blocks = (values[:, None] * (eps @ m) / scale).reshape(-1, block, d).mean(axis=1)
    blocks = blocks[np.isfinite(blocks).all(axis=1)]
    assert g.blocks == len(blocks) == n // block - 1
    np.testing.assert_allclose(g.mean, blocks.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(g.mean_stderr, blocks.std(axis=0, ddof=1) / math.sqrt(len(blocks)), rtol=1e-9)
    np.testing.assert_array_equal(after.basis, state.basis)


@pytest.mark.parametrize("problem", [oracles.Exponential, oracles.Cosine], ids=["exp", "cos"])
@pytest.mark.parametrize("sampler", [Gaussian(), Antithetic()], ids=["rows", "pairs"])
@pytest.mark.parametrize("baseline", [LeaveOneOut(), MovingAverage(), OptimalScalar()], ids=lambda b: type(b).__name__)
def test_unbiased_under_its_own_smoothing(problem: Any, sampler: Any, baseline: Any) -> None:
    """Where f is no polynomial: b.x has the variance |S D b|^2, and the standard errors hold."""
    b, scale, mean, estimates = np.array([0.8, -0.5, 0.3]), np.array([0.9, 0.7, 1.0]), exact.mean(3), []
    f, guided = problem(b), Guided(DIRECTIONS[3], alpha=ALPHA, baseline=baseline)
    variance = (scale * b) @ covariance(DIRECTIONS[3], ALPHA) @ (scale * b)
    truth = f.mean_gradient(mean, np.full(3, math.sqrt(variance / (b @ b))))
    state = guided.init(3)
    for generation in range(100):
        population, _ = prepare(guided, scale, sampler.noise(Key(8, generation), 800, 3), 3, state)
        g, state = guided.estimate(population, Evals(f.f(population.rows())), state)
        estimates.append((g.mean, g.mean_stderr))
    found, errors = np.moveaxis(np.array(estimates), 1, 0)
    error = found.std(axis=0, ddof=1) / 10.0

    assert (np.abs(found.mean(axis=0) - truth) < 4.0 * error).all()
    assert np.linalg.norm(truth) > 20.0 * np.linalg.norm(error)
    assert 0.8 < np.square(found - truth).mean() / np.square(errors).mean() < 1.25


def test_where_the_precision_goes() -> None:
    """Unbiased: precise inside, dear outside. Published: nearer to a gradient that the subspace nearly holds."""
    d, found = 40, {}
    a, other = np.eye(d)[0], np.eye(d)[1]
    u = 0.9 * a + math.sqrt(0.19) * other
    for name, estimator in {"score": Score(), "unbiased": Guided(u), "published": Guided(u, unbiased=False)}.items():
        g = [
            esopt.smoothed_gradient(lambda x: x @ a, np.zeros(d), n=10, seed=s, estimator=estimator, vectorized=True)
            for s in range(100)
        ]
        means = np.array([one.mean for one in g])
        errors = np.array([one.mean_stderr for one in g])
        angle = np.mean(means @ a / np.linalg.norm(means, axis=1))
        found[name] = angle, np.mean(np.square(means @ u - 0.9)), np.square(errors).sum(axis=1).mean() * 5

    square = covariance(u[:, None], 0.5)
    assert found["published"][0] > 0.75 > 2.0 * found["score"][0]
    assert found["unbiased"][0] < 0.5 * found["score"][0]
    assert found["unbiased"][1] < 1.2 * found["score"][1]
    assert found["unbiased"][2] == pytest.approx(square[0, 0] * np.trace(np.linalg.inv(square)) + 1.0, rel=0.1)


@pytest.mark.parametrize("d", [1, 2, 3, 17, 64, 1001])
@pytest.mark.parametrize("k", [1, 3])
def test_the_bits_of_a_row_are_its_own(d: int, k: int) -> None:
    n = 70
    guided = Guided(np.random.default_rng(d).normal(size=(d, min(k, d))))
    state = guided.init(d)
    population = guided.prepare(Population(np.ones(d), 0.3, Antithetic().noise(Key(2), n, d)), state)
    whole = population.rows()

    for start, stop in ((0, 1), (1, 2), (3, 70), (5, 12), (64, 70)):
        np.testing.assert_array_equal(population.rows(start, stop), whole[start:stop])
    single = np.stack([population[i] for i in range(n)])
    np.testing.assert_array_equal(single, whole)
    apart = whole[:2] - 1.0
    np.testing.assert_allclose(apart[0], -apart[1], rtol=1e-9)


def test_the_population_can_be_shipped() -> None:
    population, _ = prepare(Guided(DIRECTIONS[3]), np.array([0.4, 0.5, 0.6]), Gaussian().noise(Key(2), 6, 3), 3)
    again = pickle.loads(pickle.dumps(population))

    np.testing.assert_array_equal(again.rows(), population.rows())


def test_evaluators_see_the_same_rows() -> None:
    population, _ = prepare(Guided(DIRECTIONS[3]), 0.4, Antithetic().noise(Key(2), 32, 3), 3)
    expected, _ = esopt.Serial(lambda x: float(x @ x)).evaluate(population, ())
    many = esopt.Vectorized(lambda x: np.array([float(row @ row) for row in x]), chunk=5)
    for evaluator in (many, esopt.Joblib(lambda x: float(x @ x), 2, "threading", chunk=3)):
        found, _ = evaluator.evaluate(population, evaluator.init())
        evaluator.close()
        np.testing.assert_array_equal(found.values, expected.values)


def generations(guided: Guided, count: int, dim: int = 6) -> list[tuple[Population, Any, esopt.Gradient]]:
    """Some generations around one place: population, state after it, and estimate."""
    state, out = guided.init(dim), []
    for generation in range(count):
        noise = Antithetic().noise(Key(4, generation), 8, dim)
        population = guided.prepare(Population(np.linspace(-1.0, 1.0, dim), 0.5, noise), state)
        g, state = guided.estimate(population, Evals(np.square(population.rows()).sum(axis=1)), state)
        out.append((population, state, g))
    return out


def test_the_first_generation_is_isotropic() -> None:
    (population, _, g), (second, _, _) = generations(Guided(), 2)
    expected, _ = Score().estimate(population, Evals(np.square(population.rows()).sum(axis=1)), Score().init(6))

    assert population.scale == 0.5
    np.testing.assert_array_equal(g.mean, expected.mean)
    np.testing.assert_array_equal(g.mean_stderr, expected.mean_stderr)
    assert not second.separable


@pytest.mark.parametrize("past", [1, 3])
def test_the_last_estimates_span_the_subspace(past: int) -> None:
    history = generations(Guided(past=past), 5)
    for t, (_, state, _) in enumerate(history):
        last = np.array([g.mean for _, _, g in history[max(0, t + 1 - past) : t + 1]])[::-1]
        np.testing.assert_array_equal(state.past, last)
        q = state.basis
        assert q.shape == (6, len(last))
        np.testing.assert_allclose(q.T @ q, np.eye(len(last)), atol=1e-14)
        np.testing.assert_allclose(q @ (q.T @ last.T), last.T, rtol=1e-10)
        np.testing.assert_allclose(q[:, 0], last[0] / np.linalg.norm(last[0]), rtol=1e-14)


def test_an_estimate_without_a_direction_adds_nothing() -> None:
    """A flat generation leaves the subspace alone; one direction twice is one; more directions than d are d."""
    guided, eps = Guided(past=3), np.random.default_rng(0).normal(size=(4, 2))
    state = guided.init(2)

    def tell(values: Array, state: Any) -> Any:
        population = guided.prepare(Population(np.zeros(2), 0.5, Given(eps)), state)
        return guided.estimate(population, Evals(values), state)[1]

    flat = tell(np.full(4, 3.0), state)
    assert flat.basis.shape == (2, 0)
    once = tell(eps[:, 0], flat)
    again = tell(np.full(4, 3.0), once)
    np.testing.assert_array_equal(again.basis, once.basis)
    for values in (eps[:, 1], eps[:, 0], eps[:, 0] - eps[:, 1]):
        once = tell(values, once)
    assert once.past.shape == (3, 2)
    assert once.basis.shape == (2, 2)
    np.testing.assert_allclose(
        guided.prepare(Population(np.zeros(2), 0.5, Given(eps)), once).rows(), 0.5 * eps, rtol=1e-12
    )

    nearly = np.array([[1.0, 1e-3, 0.0], [2.0, 2e-3, 0.0], [1.0, 1e-3, 1e-6], [0.0, 0.0, 0.0]])
    assert _orthonormal(nearly).shape == (3, 2)
    assert _orthonormal(np.array([[1e-300, 0.0], [1e300, 1e300]])).T == pytest.approx(np.eye(2), abs=1e-15)


def test_one_block_has_no_standard_error_and_none_is_an_error() -> None:
    guided = Guided(DIRECTIONS[3])
    population, state = prepare(guided, 0.5, Antithetic().noise(Key(1), 2, 3), 3)
    g, _ = guided.estimate(population, Evals(np.array([1.0, 2.0])), state)

    assert np.isfinite(g.mean).all()
    assert np.isnan(g.mean_stderr).all()
    with pytest.raises(EvaluationError, match="no usable block of 2 candidates"):
        guided.estimate(population, Evals(np.array([1.0, np.nan])), state)


@pytest.mark.parametrize("settings", [{}, {"past": 3}, {"unbiased": False}, {"subspace": np.eye(5)[:, :2]}], ids=str)
@pytest.mark.parametrize("shaping", [esopt.Raw(), esopt.CenteredRanks()], ids=["raw", "ranks"])
def test_a_strategy_descends_with_it(settings: dict[str, Any], shaping: Any) -> None:
    strategy = esopt.GradientES(sigma=0.1, n=8, estimator=Guided(**settings), shaping=shaping, rule=esopt.Adam(0.05))
    result = esopt.minimize(lambda x: float(x @ x), np.ones(5), strategy=strategy, seed=0, generations=150)

    assert float(result.mean @ result.mean) < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"past": 0}, "past must be a positive whole number, got 0"),
        ({"past": True}, "past must be a positive whole number, got True"),
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\], got 0.0"),
        ({"alpha": 1.5, "unbiased": False}, r"alpha must be in \(0, 1\], got 1.5"),
        ({"alpha": math.nan}, r"alpha must be in \(0, 1\], got nan"),
        ({"subspace": np.zeros((3, 0))}, r"subspace must be finite numbers \(d, k\), got shape \(3, 0\)"),
        ({"subspace": np.full(3, np.nan)}, r"subspace must be finite numbers \(d, k\)"),
        ({"subspace": np.ones((3, 2))}, r"the 2 columns of subspace \(3, 2\) span 1 dimensions"),
        ({"baseline": esopt.Linear()}, r"Guided\(\) got the baseline Linear.*subtracts functions of x"),
        ({"baseline": esopt.Quadratic()}, r"Guided\(\) got the baseline Quadratic"),
        ({"baseline": esopt.OptimalPerCoordinate()}, r"Guided\(\) got the baseline OptimalPerCoordinate"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guided(**settings)


class Tangent(LeaveOneOut):
    """A baseline of the user's, with a gradient of its own."""

    def center(self, values: Array, population: Population, evals: Evals, state: Any) -> Any:
        return super().center(values, population, evals, state)._replace(mean=np.ones(population.dim))


def test_refusals() -> None:
    noise = Gaussian().noise(Key(0), 4, 3)
    with pytest.raises(ValueError, match=r"Guided\(\) got the scale a factor \(3, 3\)"):
        prepare(Guided(), np.eye(3), noise, 3)
    with pytest.raises(ValueError, match=r"Guided\(\) got a subspace of shape \(2, 1\) in 3 dimensions"):
        Guided(np.ones((2, 1))).init(3)
    with pytest.raises(TypeError, match="baseline must be an instance, got the class LeaveOneOut"):
        Guided(baseline=LeaveOneOut)  # type: ignore[arg-type]
    guided = Guided(baseline=Tangent())
    population, state = prepare(guided, 0.5, noise, 3)
    with pytest.raises(ValueError, match="which subtracts functions of x"):
        guided.estimate(population, Evals(np.arange(4.0)), state)
    assert Guided(alpha=0.0, unbiased=False).alpha == 0.0
    assert Guided(baseline=AtMean()).raw_only
