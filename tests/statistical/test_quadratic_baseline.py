"""The parabola of earlier generations: E11 of theory.md, H -> H - diag(h) and a -> a - c, in every variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Evals, Gaussian, Key, Linear, Population, Quadratic, Score
from esopt.baselines.linear import LinearState
from esopt.baselines.quadratic import QuadraticState
from esopt.estimators.score import ScoreState
from tests.reference import oracles
from tests.statistical import exact

KINDS = ["scalar", "diagonal"]


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_variance_is_that_of_what_the_parabola_misses(dim: int, kind: str, pair: bool) -> None:
    """One row or pair on a full quadratic, with a state off by half: exact to 1e-12, and unbiased."""
    problem, at, sigma = exact.quadratic(dim), exact.mean(dim), exact.sigma_of(kind, dim)
    c, h = 0.4 * problem.grad(at), 0.6 * np.diag(problem.q) + 0.2
    state = ScoreState(QuadraticState(0.5 * c, 0.5 * h, 0.5))
    found = exact.run(Score(Quadratic(), True), problem, kind, 1, dim, 5, pair=pair, state=state)
    _, a, hs, _ = problem.at(at, sigma)
    a, hs = a - sigma * c, hs - np.diag(sigma**2 * h)
    m = problem.smoothed(at, sigma)  # a single block has no others to be centred by
    by_mean = oracles.score_mean_pair(a) if pair else oracles.score_mean(a, hs, m)
    by_log = oracles.score_log_scale(a, hs, m, pair=pair)
    by_sigma = oracles.score_sigma(a, hs, m, pair=pair) / sigma[0] ** 2

    exact.unbiased(found, problem, kind, dim)
    exact.varies(found, {"mean": by_mean / sigma**2, "scale": by_sigma if kind == "scalar" else by_log})


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
def test_unbiased_on_a_cubic(kind: str, pair: bool) -> None:
    state = ScoreState(QuadraticState(np.array([0.7, -0.2]), np.array([1.1, 0.4]), 0.8))
    found = exact.run(Score(Quadratic(), True), exact.cubic(2), kind, 2, 2, 3, pair=pair, state=state)

    exact.unbiased(found, exact.cubic(2), kind, 2)


@pytest.mark.parametrize("scale", [0.5, np.array([0.5, 0.2, 0.9, 0.4])], ids=KINDS)
@pytest.mark.parametrize("sampler", [Gaussian(), esopt.Antithetic()], ids=["rows", "pairs"])
def test_nothing_is_left_of_a_diagonal_quadratic(sampler: Any, scale: Any) -> None:
    """With the exact c and h: no error in mean and scale, standard errors that say so, and a state that stays."""
    h, mean = np.array([2.0, -1.0, 0.5, 4.0]), np.array([1.0, 2.0, -1.0, 0.5])
    state = ScoreState(QuadraticState(h * mean, h, 1.0))
    population = Population(mean, scale, sampler.noise(Key(1), 12, 4))
    evals = Evals(7.0 + 0.5 * np.square(population.rows()) @ h)
    for with_scale in (False, True):
        g, after = Score(Quadratic(), with_scale).estimate(population, evals, state)
        assert np.abs(g.mean - h * mean).max() < 1e-12
        assert g.mean_stderr.max() < 1e-12
        np.testing.assert_allclose(after.baseline.gradients / after.baseline.weight, h * mean, rtol=1e-12)
        np.testing.assert_allclose(after.baseline.curvatures / after.baseline.weight, h, rtol=1e-10)
    expected = h * np.square(scale) if np.ndim(scale) else h.sum() * scale
    np.testing.assert_allclose(g.scale, expected, rtol=1e-12)
    assert np.max(g.scale_stderr) < 1e-11


@pytest.mark.parametrize("with_scale", [False, True])
@pytest.mark.parametrize("scale", [0.3, np.array([0.3, 0.2, 0.5, 0.3])], ids=KINDS)
def test_a_steady_parabola_is_learned(scale: Any, with_scale: bool) -> None:
    """From a fresh state: h comes out whether the estimator has a gradient of the scale or not, failures or not."""
    h, a = np.array([2.0, -1.0, 0.5, 4.0]), np.array([1.0, 2.0, -1.0, 0.5])
    estimator, mean = Score(Quadratic(0.5), with_scale), np.zeros(4)
    state, squares = estimator.init(4), []
    for generation in range(40):
        population = Population(mean, scale, Gaussian().noise(Key(6, generation), 60, 4))
        x = population.rows()
        values = x @ a + 0.5 * np.square(x) @ h
        values[generation % 60] = np.nan
        g, state = estimator.estimate(population, Evals(values), state)
        squares.append(np.square(g.mean - a).sum())

    np.testing.assert_allclose(state.baseline.gradients / state.baseline.weight, a, atol=1e-6)
    np.testing.assert_allclose(state.baseline.curvatures / state.baseline.weight, h, atol=1e-5)
    assert squares[-1] < 1e-10 * squares[0]


def test_a_first_generation_is_leave_one_out() -> None:
    population = Population(np.zeros(2), 0.5, Gaussian().noise(Key(3), 6, 2))
    values = np.arange(6.0)
    centered = Quadratic().center(values, population, Evals(values), Quadratic().init(2))

    np.testing.assert_array_equal(centered.values, values - (15.0 - values) / 5.0)
    assert centered[1:] == (None, None, None, None)


@pytest.mark.parametrize("decay", [-0.1, 1.0, np.nan])
def test_decay_is_a_weight(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        Quadratic(decay)


def test_a_tangent_under_a_factor() -> None:
    """c . (x - mean) = (L^T c) . eps: nothing is left of a linear function, whatever the factor."""
    c, factor = np.array([1.0, -2.0, 0.5]), np.array([[1.0, 0.2, 0.0], [0.5, -1.0, 0.3], [0.1, 0.4, 2.0]])
    population = Population(np.ones(3), factor, Gaussian().noise(Key(1), 10, 3))
    g, _ = Score(Linear()).estimate(population, Evals(population.rows() @ c), ScoreState(LinearState(c, 1.0)))

    np.testing.assert_allclose(g.mean, c, atol=1e-12)
    assert g.mean_stderr.max() < 1e-12


def test_gradient_es_learns_with_it() -> None:
    """On a sphere far away: steps that the noise of two dozen rows would not allow."""
    found = {}
    for baseline in (Quadratic(), esopt.LeaveOneOut()):
        es = esopt.GradientES(sigma=0.5, n=24, sampler=Gaussian(), estimator=Score(baseline), rule=esopt.SGD(0.05))
        result = esopt.minimize(lambda x: float(x @ x), np.full(10, 3.0), strategy=es, seed=0, generations=200)
        found[type(baseline).__name__] = float(result.x @ result.x)

    assert found["Quadratic"] < 0.2 * found["LeaveOneOut"]
