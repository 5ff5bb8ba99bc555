"""The mixture of values and gradients: unbiased, near the least variance, and not fooled by jumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import t as student

from esopt import (
    SGD,
    Antithetic,
    AtMean,
    Bonnet,
    Evals,
    EvaluationError,
    Gaussian,
    Given,
    Gradient,
    GradientES,
    Hybrid,
    Key,
    LeaveOneOut,
    Linear,
    NoBaseline,
    Orthogonal,
    Population,
    Score,
    Sphere,
    minimize,
)
from esopt._kernels import threads

Array = NDArray[np.float64]
SAMPLERS = {"rows": Gaussian(), "pairs": Antithetic()}


@dataclass(frozen=True, eq=False)
class Problem:
    """f of rows, its gradients where it has them, and the gradient of the smoothed function."""

    f: Callable[[Array], Array]
    grad: Callable[[Array], Array]
    mean: Array
    truth: Callable[[Array], Array]

    @property
    def dim(self) -> int:
        return self.mean.size


A = np.array([0.9, -0.5, 0.7])
Q = np.array([[1.5, 0.4, -0.3], [0.4, -0.6, 0.2], [-0.3, 0.2, 0.9]])
AT = np.array([0.5, -0.4, 0.8])


def damping(sigma: Array) -> float:
    return float(np.exp(-0.5 * np.square(sigma * A).sum()))


SMOOTH = {
    "quadratic": Problem(
        lambda x: 1.9 + x @ A + 0.5 * np.einsum("ij,jk,ik->i", x, Q, x),
        lambda x: A + x @ Q,
        AT,
        lambda sigma: A + Q @ AT,
    ),
    "exp": Problem(
        lambda x: np.exp(x @ A), lambda x: np.exp(x @ A)[:, None] * A, AT, lambda s: np.exp(A @ AT) / damping(s) * A
    ),
    "cos": Problem(
        lambda x: np.cos(x @ A), lambda x: -np.sin(x @ A)[:, None] * A, AT, lambda s: -np.sin(A @ AT) * damping(s) * A
    ),
    "sin": Problem(
        lambda x: np.sin(x @ A), lambda x: np.cos(x @ A)[:, None] * A, AT, lambda s: np.cos(A @ AT) * damping(s) * A
    ),
}


def run(
    estimator: Any, problem: Problem, sampler: Any, sigma: Any, n: int, generations: int, seed: int = 5
) -> list[Gradient]:
    """Estimates from independent generations at one place."""
    found = []
    for generation in range(generations):
        noise = sampler.noise(Key(seed, generation), n, problem.dim)
        state = estimator.init(problem.dim)
        population = estimator.prepare(Population(problem.mean, sigma, noise), state)
        x = population.rows()
        found.append(estimator.estimate(population, Evals(problem.f(x), problem.grad(x)), state)[0])
    return found


def means(found: list[Gradient]) -> Array:
    return np.array([g.mean for g in found])


def notes(found: list[Gradient], name: str) -> Array:
    return np.array([g.notes[name] for g in found])


@pytest.mark.parametrize(("sampler", "tangent"), [("rows", False), ("rows", True), ("pairs", True)])
@pytest.mark.parametrize("kind", SMOOTH)
def test_unbiased(kind: str, sampler: str, tangent: bool) -> None:
    """Few blocks, so that weights vary much: fitted to their own blocks they would bias exp by 10 errors or more."""
    problem, sigma = SMOOTH[kind], 0.8 if sampler == "rows" else np.array([0.8, 0.5, 1.1])
    found = run(Hybrid(tangent=tangent), problem, SAMPLERS[sampler], sigma, 20, 1000)
    truth = problem.truth(np.broadcast_to(sigma, 3).astype(np.float64))
    error = means(found).std(axis=0, ddof=1) / np.sqrt(len(found))

    exact = kind == "quadratic" and sampler == "pairs"
    assert exact or notes(found, "weight_on_gradients").std() > 0.05
    assert np.all(np.abs(means(found).mean(axis=0) - truth) < 4.0 * error + 1e-12)
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(truth) + 0.02


def test_standard_errors_of_the_mixture() -> None:
    """With weights of their own for the two halves; the squared z-scores average 1."""
    problem = SMOOTH["sin"]
    found = run(Hybrid(), problem, Gaussian(), 1.3, 128, 1000)
    off = means(found) - problem.truth(np.full(3, 1.3))
    ratio = np.square(off).mean() / np.mean([np.square(g.mean_stderr) for g in found])

    assert ratio == pytest.approx(1.0, abs=0.1)


WAVE = Problem(lambda x: np.sin(1.2 * x[:, 0]), lambda x: 1.2 * np.cos(1.2 * x), np.array([0.3]), lambda s: np.zeros(1))


def sides(problem: Problem) -> tuple[Array, Array, Array]:
    """The two sides' terms on Gauss-Hermite nodes for d = 1 and sigma = 1, with the mean as baseline; weights."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    x = problem.mean + nodes[:, None]
    values = problem.f(x)
    return (values - weights @ values) * nodes, problem.grad(x)[:, 0], weights


def test_wave_costs_less_than_either_side() -> None:
    """sin(1.2 x) at 0.3, sigma = 1: V_P = 0.452, V_S = 0.357, the best mixture 0.102."""
    score, pathwise, weights = sides(WAVE)
    truth = weights @ pathwise
    assert weights @ score == pytest.approx(truth, abs=1e-12)
    v_s, v_p = weights @ np.square(score - truth), weights @ np.square(pathwise - truth)
    c = weights @ ((score - truth) * (pathwise - truth))
    best = (v_s * v_p - c * c) / (v_s + v_p - 2.0 * c)
    assert (v_p, v_s, best) == pytest.approx((0.452, 0.357, 0.102), abs=6e-4)

    n = 200
    found = run(Hybrid(tangent=False), WAVE, Gaussian(), 1.0, n, 1500)
    squares = n * np.square(means(found)[:, 0] - truth)
    variance, error = squares.mean(), squares.std() / np.sqrt(squares.size)
    # What the scatter of the weights costs: the variance of a fixed weight, averaged over the weights that were used.
    used = notes(found, "weight_on_gradients")
    expected = (np.square(used) * v_p + np.square(1.0 - used) * v_s + 2.0 * used * (1.0 - used) * c).mean()

    assert best - 4.0 * error < variance < 0.5 * v_s
    # Each half has its own weight, whose scatter is twice that of their mean.
    assert expected - 4.0 * error < variance < best + 2.0 * (expected - best) + 4.0 * error


@pytest.mark.parametrize(("dim", "least"), [(5, 0.7), (20, 0.84), (100, 0.92)])
@pytest.mark.parametrize("tangent", [False, True])
def test_quadratic_goes_to_the_gradients(dim: int, least: float, tangent: bool) -> None:
    """The best weight is 1 for independent rows; chance holds it back, the less the more dimensions."""
    q = np.linspace(0.2, 2.0, dim)
    problem = Problem(
        lambda x: x.sum(axis=1) + 0.5 * np.square(x) @ q, lambda x: 1.0 + x * q, np.zeros(dim), lambda s: np.ones(dim)
    )
    found = [run(part, problem, Gaussian(), 0.3, 200, 30) for part in (Hybrid(tangent=tangent), Score(), Bonnet())]
    hybrid, score, bonnet = (np.square(means(each) - 1.0).sum(axis=1).mean() for each in found)

    assert least < notes(found[0], "weight_on_gradients").mean() <= 1.0
    assert hybrid < (1.6 * bonnet if tangent else 0.1 * score)


def test_pairs_on_a_quadratic_are_exact() -> None:
    """With tangents both sides are; what rounding leaves is no jump."""
    for found in run(Hybrid(), SMOOTH["quadratic"], Antithetic(), 0.5, 40, 20):
        np.testing.assert_allclose(found.mean, SMOOTH["quadratic"].truth(A), rtol=1e-12)
        assert np.all(found.mean_stderr < 1e-12)
        assert found.notes == {
            "weight_on_gradients": 1.0,
            "jump_z": 0.0,
            "bias_allowed": 0.0,
            "side": "gradients: the least variance",
        }


def jump(height: float, dim: int = 20, bend: float = 0.0) -> Problem:
    """Unit slope in one direction, a jump in another, the same curvature in all."""
    slope, across = np.eye(dim)[1], np.eye(dim)[0]
    return Problem(
        lambda x: x @ slope + height * (x[:, 0] > 0.0) + 0.5 * bend * np.square(x).sum(axis=1),
        lambda x: slope + bend * x,
        np.zeros(dim),
        lambda sigma: slope + height * across / (np.sqrt(2.0 * np.pi) * sigma[0]),
    )


def wave(dim: int) -> Problem:
    """One wave across all dimensions."""
    a = np.full(dim, 1.2 / np.sqrt(dim))
    return Problem(
        lambda x: np.sin(x @ a + 0.3), lambda x: np.cos(x @ a + 0.3)[:, None] * a, np.zeros(dim), lambda s: a
    )


# The problem, whether with tangents, and the number of false alarms in 300 that is let pass.
NO_JUMPS = {"linear": (jump(0.0), False, 2), "wave": (wave(20), True, 2), "wave, d = 1": (wave(1), True, 2)}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", NO_JUMPS)
def test_no_false_alarms(kind: str, sampler: str) -> None:
    problem, tangent, allowed = NO_JUMPS[kind]
    z = notes(run(Hybrid(tangent=tangent), problem, SAMPLERS[sampler], 1.0, 400, 300), "jump_z")

    assert np.count_nonzero(z > 3.0) <= allowed
    assert abs(z.mean()) < 0.25
    assert z.std() == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NO_JUMPS)
def test_false_alarms_are_as_rare_as_for_a_normal_score(kind: str) -> None:
    """0.13 % of the generations, to a factor of three where the spectrum of the differences is uneven."""
    problem, tangent, _ = NO_JUMPS[kind]
    z = notes(run(Hybrid(tangent=tangent), problem, Gaussian(), 1.0, 400, 8000), "jump_z")

    assert np.mean(z > 3.0) < 0.005
    assert np.mean(z > 1.645) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(("height", "power"), [(0.5, 0.19), (1.0, 0.97), (2.0, 0.999)])
@pytest.mark.parametrize("bend", [0.0, 0.1])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_power_against_jumps(height: float, power: float, bend: float, sampler: str) -> None:
    """With 400 rows in 20 dimensions."""
    found = run(Hybrid(), jump(height, bend=bend), SAMPLERS[sampler], 1.0, 400, 100)
    flagged = notes(found, "jump_z") > 3.0
    sentences = np.array(["miss a jump" in str(g.notes["side"]) for g in found])

    assert np.array_equal(flagged, sentences)
    assert flagged.mean() >= power


@pytest.mark.parametrize(("height", "power"), [(1.0, 0.9), (2.0, 0.999)])
def test_power_without_tangents(height: float, power: float) -> None:
    """The linear part hides small jumps; of 400 antithetic pairs."""
    found = run(Hybrid(tangent=False), jump(height), Antithetic(), 1.0, 800, 100)

    assert np.mean(notes(found, "jump_z") > 3.0) >= power


def test_tangents_leave_the_jump_only() -> None:
    """The score of a function that is linear but for a jump pays for the jump alone."""
    problem = jump(0.5)
    truth = problem.truth(np.ones(20))
    found = [run(part, problem, Antithetic(), 1.0, 400, 100) for part in (Hybrid(), Hybrid(tangent=False), Bonnet())]
    error = [np.square(means(each) - truth).sum(axis=1).mean() for each in found]

    assert notes(found[0], "weight_on_gradients").max() == 0.0
    assert {str(g.notes["side"])[:5] for g in found[0]} == {"score"}
    assert error[0] < 0.25 * min(error[1:])
    assert means(found[0]).mean(axis=0)[0] == pytest.approx(truth[0], abs=0.02)


@pytest.mark.parametrize("dim", [1, 5])
def test_step_function(dim: int) -> None:
    """All gradients are 0; the smoothed function has one."""
    step = Problem(lambda x: 1.0 * (x[:, 0] > 0.3), np.zeros_like, np.zeros(dim), lambda s: np.zeros(dim))
    found = run(Hybrid(), step, Gaussian(), 0.7, 400, 200)
    truth = np.eye(dim)[0] * np.exp(-0.5 * (0.3 / 0.7) ** 2) / (0.7 * np.sqrt(2.0 * np.pi))
    error = means(found).std(axis=0, ddof=1) / np.sqrt(len(found))

    assert np.all(means(run(Bonnet(), step, Gaussian(), 0.7, 400, 2)) == 0.0)
    assert np.all(np.abs(means(found).mean(axis=0) - truth) < 4.0 * error)
    assert error[0] < 0.03 * truth[0]
    assert notes(found, "jump_z").min() > 3.0


def sigmoid(width: float, dim: int) -> Problem:
    """Phi(u . x / width) at 0, u the diagonal: a step if the width is 0."""
    u = np.full(dim, 1.0 / np.sqrt(dim))

    def grad(x: Array) -> Array:
        if width == 0.0:
            return np.zeros_like(x)
        return np.exp(-0.5 * np.square(x @ u / width))[:, None] * u / (np.sqrt(2.0 * np.pi) * width)

    return Problem(
        lambda x: ndtr(x @ u / width) if width else 1.0 * (x @ u > 0.0),
        grad,
        np.zeros(dim),
        lambda sigma: u / np.sqrt(2.0 * np.pi * (width**2 + sigma[0] ** 2)),
    )


@pytest.mark.parametrize("n", [32, 64, 100])
@pytest.mark.parametrize("dim", [2, 10])
def test_few_pairs_at_a_step(dim: int, n: int) -> None:
    """They do not show the step for sure; the error bars own up to it. Gradients alone say 0 with error 0."""
    problem = sigmoid(0.0, dim)
    truth = problem.truth(np.ones(dim))
    found = run(Hybrid(), problem, Antithetic(), 1.0, n, 300)
    score = np.square(means(run(Score(), problem, Antithetic(), 1.0, n, 300)) - truth).sum(axis=1).mean()
    errors = np.array([g.mean_stderr for g in found])
    off = means(found) - truth
    squared = np.square(off).sum(axis=1).mean()

    assert np.mean(np.abs(off) <= student.ppf(0.975, n // 2 - 1) * errors) > 0.87
    assert 0.8 < squared / np.square(errors).sum(axis=1).mean() < 1.35
    assert np.sqrt(squared / min(score, float(truth @ truth))) < 1.15


@pytest.mark.parametrize("n", [16, 32, 64])
def test_few_pairs_at_a_slope_with_a_step(n: int) -> None:
    """The gradients are all the same, and wrong in one coordinate."""
    slope = np.full(6, 0.8 / np.sqrt(6.0))
    f, g = lambda x: (x[:, 0] > 0.0) + x @ slope, lambda x: np.tile(slope, (len(x), 1))
    found = run(Hybrid(), Problem(f, g, np.zeros(6), lambda s: slope), Antithetic(), 1.0, n, 300)
    truth = slope + np.eye(6)[0] / np.sqrt(2.0 * np.pi)
    errors = np.array([each.mean_stderr for each in found])

    assert errors[:, 0].min() > 0.0
    assert 0.8 < np.square(means(found) - truth).sum(axis=1).mean() / np.square(errors).sum(axis=1).mean() < 1.6


@pytest.mark.parametrize("dim", [1, 10, 100])
@pytest.mark.parametrize("width", [0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.1])
def test_near_a_step_nothing_is_much_worse_than_values(width: float, dim: int) -> None:
    """Of 100 rows; below 0.01 hardly a row meets the slope, and a gradient there is 40 to 400,000."""
    problem, generations = sigmoid(width, dim), 300 if 0.0 < width < 0.01 else 100
    truth = problem.truth(np.ones(dim))
    hybrid, score = (
        np.square(means(run(part, problem, Gaussian(), 1.0, 100, generations)) - truth).sum(axis=1)
        for part in (Hybrid(), Score())
    )

    assert np.sqrt(hybrid.mean() / score.mean()) < 1.5


@pytest.mark.parametrize("dim", [1, 10, 100])
@pytest.mark.parametrize("width", [0.3, 1.0])
def test_smooth_sigmoids_cost_no_more_than_the_better_side(width: float, dim: int) -> None:
    problem = sigmoid(width, dim)
    truth = problem.truth(np.ones(dim))
    hybrid, score, bonnet = (
        np.square(means(run(part, problem, Gaussian(), 1.0, 100, 200)) - truth).sum(axis=1).mean()
        for part in (Hybrid(), Score(), Bonnet())
    )

    assert np.sqrt(hybrid / min(score, bonnet)) < 1.15


@pytest.mark.parametrize("tangent", [False, True])
@pytest.mark.parametrize("far", [1.0, 1e4, 1e8])
@pytest.mark.parametrize(("n", "dim"), [(10, 20), (60, 3), (11, 2), (9, 2100)])
def test_against_double_loops(n: int, dim: int, far: float, tangent: bool) -> None:
    """More blocks than dimensions, fewer, halves of unequal size, several tiles of columns; a gradient far out; the
    known gradient of a baseline is added."""
    q = np.linspace(0.2, 2.0, dim) / np.sqrt(max(1.0, dim / 20.0))
    problem = Problem(lambda x: np.sin(x @ q), lambda x: np.cos(x @ q)[:, None] * q, 0.1 + q, lambda s: q)
    noise = Gaussian().noise(Key(3), n, dim)
    population = Population(problem.mean, q, noise)
    x, eps = population.rows(), noise.rows().astype(np.float64)
    values, pathwise, plane = problem.f(x), problem.grad(x), np.linspace(-0.2, 0.5, dim)
    pathwise[4] *= far
    estimator = Hybrid(Score(Linear()), tangent)
    state = estimator.init(dim)
    learned = type(state)(type(state.baseline)(plane.copy(), 1.0))
    gradient, _ = estimator.estimate(population, Evals(values, pathwise), learned)

    score = np.zeros((n, dim))
    for i in range(n):
        rest = [j for j in range(i % 2, n, 2) if j != i]
        slope = plane + tangent * naive_tangent(pathwise[rest])
        slopes = {j: plane + tangent * naive_tangent(pathwise[[k for k in [*rest, i] if k != j]]) for j in rest}
        level = np.mean([values[j] - slopes[j] @ (q * eps[j]) for j in rest])
        score[i] = slope + (values[i] - slope @ (q * eps[i]) - level) * eps[i] / q
    lags = min(n - 1, max(8, -(-1024 // n)))
    halves = slice(0, None, 2), slice(1, None, 2)
    w = [naive_weight(score[half], pathwise[half], lags // 2) for half in halves]
    weight = np.array([w[1 - i % 2] for i in range(n)])
    out = [np.square(pathwise[half] - pathwise[half].mean(axis=0)).sum(axis=1) for half in halves]
    far_off = [np.square((score - pathwise)[half]).sum(axis=1) for half in halves]
    reach = [(a + q).max() for a, q in zip(far_off, out, strict=True)]
    lost = np.array([min(out[i % 2][i // 2], far_off[i % 2][i // 2]) > 100.0 * reach[1 - i % 2] for i in range(n)])
    apart = np.where(lost[:, None], 0.0, score - pathwise)
    z, u, _ = naive_z(apart, lags)
    weight[lost] = 0.0
    mixed = weight[:, None] * pathwise + (1.0 - weight[:, None]) * score
    squares = np.square(apart).sum(axis=0)
    left = weight.mean() ** 2 * naive_bias(z, u, min(1.0, 16.0 / n)) * squares / squares.sum()
    error = np.sqrt(mixed.var(axis=0, ddof=1) / n + left)

    assert np.array_equal(np.flatnonzero(lost), [4] if far > 1.0 else [])
    np.testing.assert_allclose(gradient.mean, mixed.mean(axis=0), rtol=1e-6, atol=1e-6 * np.abs(mixed).mean())
    np.testing.assert_allclose(gradient.mean_stderr, error, rtol=1e-5)
    assert gradient.notes["weight_on_gradients"] == pytest.approx(weight.mean(), rel=1e-6)
    assert gradient.notes["jump_z"] == pytest.approx(z, rel=1e-5, abs=1e-6)
    assert (gradient.blocks, gradient.evaluations) == (n, n)


def naive_tangent(others: Array) -> Array:
    """The mean, shrunk where it is not more than one or two of them could make alone."""
    mean, n = others.mean(axis=0), len(others)
    k = n * (mean @ mean) / (np.square(others - mean).sum() / (n - 1))
    return np.asarray(max(0.0, 1.0 - 4.0 / k**2) * mean)


def naive_z(delta: Array, lags: int) -> tuple[float, float, float]:
    """The chance of a sum of squares above U's, by Wilson and Hilferty, as a normal score; U, and its error."""
    n = len(delta)
    u = float(np.mean([delta[i] @ delta[j] for i in range(n) for j in range(n) if i != j]))
    squares = np.mean([(delta[i] @ delta[j]) ** 2 for i in range(n) for j in range(n) if 0 < i - j <= lags])
    trace = np.mean([d @ d for d in delta])
    k = trace**2 / squares
    error = float(np.sqrt(2.0 * squares / (n * (n - 1))))
    chi = k + np.sqrt(2.0 * k) * u / error
    return float((np.cbrt(max(chi, 0.0) / k) - 1.0 + 2.0 / (9.0 * k)) / np.sqrt(2.0 / (9.0 * k))), u, error


def naive_bias(z: float, u: float, doubt: float) -> float:
    return float(max(u, 0.0) * np.clip(z - 1.5 + doubt, 0.0, 1.0))


def naive_weight(score: Array, pathwise: Array, lags: int) -> float:
    z, u, error = naive_z(score - pathwise, lags)
    if z > 3.0:
        return 0.0
    s, p = score - score.mean(axis=0), pathwise - pathwise.mean(axis=0)
    v_s, v_p, c = (float((a * b).sum()) / (len(s) - 1) for a, b in ((s, s), (p, p), (s, p)))
    doubt = min(1.0, 8.0 / len(score))
    bias = naive_bias(z, u, doubt) + doubt * error
    return float(np.clip((v_s - c) / (v_s + v_p - 2.0 * c + len(score) * bias), 0.0, 1.0))


@pytest.mark.parametrize("sampler", [*SAMPLERS.values(), Orthogonal(4)])
def test_the_number_of_threads_changes_no_bit(sampler: Any) -> None:
    """Large enough for threads, and a tile of columns that is not whole."""
    n, dim = 64, 5000
    noise = sampler.noise(Key(13), n, dim)
    values, grads = noise.rows()[:, :2].sum(axis=1) ** 2.0, noise.rows().astype(np.float64) + 1.0
    found = []
    for count in (1, 2, threads.threads()):
        with threads.limited(count):
            population = Population(np.zeros(dim), 0.1, noise)
            found.append(Hybrid().estimate(population, Evals(values, grads), Hybrid().init(dim))[0])

    assert threads.parallel(n * dim) or threads.threads() == 1
    for other in found[1:]:
        assert np.array_equal(other.mean, found[0].mean)
        assert np.array_equal(other.mean_stderr, found[0].mean_stderr)
        assert other.notes == found[0].notes


def one(estimator: Any, noise: Any, values: Array | None = None, grads: Array | None = None) -> Gradient:
    """The estimate on exp, with some values or gradients in place of the right ones."""
    state = estimator.init(3)
    population = estimator.prepare(Population(AT, 0.6, noise), state)
    x = population.rows()
    evals = Evals(SMOOTH["exp"].f(x) if values is None else values, SMOOTH["exp"].grad(x) if grads is None else grads)
    gradient: Gradient = estimator.estimate(population, evals, state)[0]
    return gradient


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_few_blocks_are_the_score_alone(blocks: int) -> None:
    noise = Antithetic().noise(Key(7), 2 * blocks, 3)
    found, score = one(Hybrid(), noise), one(Score(), noise)

    assert np.array_equal(found.mean, score.mean)
    assert np.array_equal(found.mean_stderr, score.mean_stderr, equal_nan=True)
    assert found.notes["weight_on_gradients"] == 0.0
    assert str(found.notes["side"]).startswith(f"score: {blocks} blocks")
    assert np.isnan(found.mean_stderr).all() == (blocks == 1)


@pytest.mark.parametrize("what", ["values", "grads"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_failed_rows_are_as_if_never_there(what: str, bad: float) -> None:
    rows = Gaussian().noise(Key(8), 24, 3).rows().astype(np.float64).repeat(2, axis=0)
    rows[1::2] *= -1.0
    noise, rest = Given(rows, 2, True), Given(np.delete(rows, [6, 7], axis=0), 2, True)
    x = AT + 0.6 * rows
    values, grads = SMOOTH["exp"].f(x), SMOOTH["exp"].grad(x)
    if what == "values":
        values[7] = bad
    else:
        grads[7, 1] = bad
    found, expected = one(Hybrid(), noise, values, grads), one(Hybrid(), rest)

    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.mean_stderr, expected.mean_stderr, rtol=1e-12)
    assert found.notes["side"] == expected.notes["side"]
    assert found.notes["jump_z"] == pytest.approx(expected.notes["jump_z"], rel=1e-9)
    assert found.blocks == 23


def test_lost_gradients_leave_the_score_and_lost_values_nothing() -> None:
    noise = Gaussian().noise(Key(9), 12, 3)
    found = one(Hybrid(), noise, grads=np.full((12, 3), np.nan))

    assert np.array_equal(found.mean, one(Score(), noise).mean)
    assert found.blocks == 12
    assert str(found.notes["side"]).startswith("score: 0 blocks")
    with pytest.raises(EvaluationError, match="no usable candidate"):
        one(Hybrid(), noise, values=np.full(12, np.nan))


@pytest.mark.parametrize("baseline", [NoBaseline(), LeaveOneOut(), AtMean()])
def test_explicit_rows_and_explicit_noise(baseline: Any) -> None:
    """Rows that a baseline asked for do not count as noise; noise given as rows is the same noise."""
    noise = Antithetic().noise(Key(10), 40, 3)
    given = Given(noise.rows().astype(np.float64), 2, True)
    estimator = Hybrid(Score(baseline))
    found, same = one(estimator, noise), one(estimator, given)

    np.testing.assert_allclose(found.mean, same.mean, rtol=1e-6)
    np.testing.assert_allclose(found.mean_stderr, same.mean_stderr, rtol=1e-5)
    assert found.blocks == 20
    assert found.evaluations == 40 + isinstance(baseline, AtMean)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("baseline", [LeaveOneOut(), Linear()])
def test_a_factor_is_a_scale_and_a_rotation_of_the_noise(sampler: str, baseline: Any) -> None:
    """L = D R: x = D (R eps), L^-T eps = D^-1 (R eps)."""
    sigma = np.array([0.8, 0.3, 1.1])
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    rows = SAMPLERS[sampler].noise(Key(14), 60, 3).rows().astype(np.float64)
    block = 2 if sampler == "pairs" else 1
    estimator, found = Hybrid(Score(baseline)), []
    for scale, eps in ((np.diag(sigma) @ turn, rows), (sigma, rows @ turn.T)):
        state = estimator.init(3)
        for problem in (SMOOTH["exp"], SMOOTH["sin"]):  # the second with what the baseline learned
            population = estimator.prepare(Population(AT, scale, Given(eps, block, block == 2)), state)
            x = population.rows()
            gradient, state = estimator.estimate(population, Evals(problem.f(x), problem.grad(x)), state)
            found.append(gradient)
    for one_, other in zip(found[:2], found[2:], strict=True):
        np.testing.assert_allclose(one_.mean, other.mean, rtol=1e-9)
        np.testing.assert_allclose(one_.mean_stderr, other.mean_stderr, rtol=1e-9)
        assert one_.notes["weight_on_gradients"] == pytest.approx(other.notes["weight_on_gradients"], rel=1e-9)


def test_nothing_to_mix() -> None:
    """A constant has no jump and no gradient."""
    found = one(Hybrid(), Gaussian().noise(Key(11), 12, 3), np.full(12, 2.5), np.zeros((12, 3)))

    assert np.array_equal(found.mean, np.zeros(3))
    assert found.notes["jump_z"] == 0.0


def test_refusals() -> None:
    noise = Gaussian().noise(Key(12), 12, 3)
    with pytest.raises(ValueError, match=r"got no gradients\. Pass grad="):
        Hybrid().estimate(Population(AT, 0.6, noise), Evals(np.zeros(12)), Hybrid().init(3))
    with pytest.raises(ValueError, match="uniform on the sphere"):
        one(Hybrid(), Sphere().noise(Key(12), 12, 3))
    with pytest.raises(ValueError, match="gradients of the mean only"):
        Hybrid(Score(with_scale=True))


def test_minimize_says_what_was_chosen() -> None:
    """Gradients draw to the minimum at 0; the step to a lower floor is seen by the values only."""
    steps: list[Any] = []
    strategy = GradientES(sigma=0.3, n=200, estimator=Hybrid(), rule=SGD(0.1))

    def f(x: Array) -> float:
        return float(x @ x) - 8.0 * float(x[0] > 0.2)

    found = minimize(
        f, np.zeros(2), strategy=strategy, grad=lambda x: 2.0 * x, seed=2, generations=30, callback=steps.append
    )
    first = steps[0].info

    assert found.mean[0] > 0.35
    assert first.scalars["jump_z"] > 3.0
    assert first.scalars["weight_on_gradients"] == 0.0
    assert first.choices == {"side": first.gradient.notes["side"]}
    assert first.choices["side"].startswith("score: the gradients miss a jump (z = ")
