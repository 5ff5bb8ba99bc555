"""The tangent baseline: variance a -> a - c of theory.md E10, and unbiased."""

import numpy as np
import pytest

import esopt
from esopt.baselines.linear import LinearState
from esopt.estimators.score import ScoreState

DIM, N, GENERATIONS = 20, 40, 3000
A = np.linspace(0.5, 1.5, DIM)


@pytest.mark.parametrize(("share", "factor"), [(0.0, 1.0), (0.5, 0.25), (0.9, 0.01), (2.0, 1.0)])
def test_variance_is_that_of_what_the_tangent_misses(share, factor):
    score, sigma = esopt.Score(esopt.Linear()), 0.3
    state = ScoreState(LinearState(share * A, 1.0))
    errors = []
    for generation in range(GENERATIONS):
        noise = esopt.Gaussian().noise(esopt.Key(4, generation), N, DIM)
        population = esopt.Population(np.zeros(DIM), sigma, noise)
        gradient, _ = score.estimate(population, esopt.Evals(population.rows() @ A), state)
        errors.append(gradient.mean - A)
    measured = np.square(errors).sum(axis=1)
    expected = factor * (DIM + 1) * (A @ A) / (N - 1)  # theory.md E8 and E10

    assert abs(measured.mean() / expected - 1.0) < 5.0 * measured.std() / np.sqrt(GENERATIONS) / expected
    assert np.abs(np.mean(errors, axis=0)).max() < 5.0 * np.sqrt(expected / DIM / GENERATIONS)


def test_a_steady_gradient_is_learned():
    errors = {}
    for name, estimator in (("linear", esopt.Score(esopt.Linear())), ("mean", esopt.Score(esopt.LeaveOneOut()))):
        strategy = esopt.GradientES(sigma=0.1, n=40, sampler=esopt.Gaussian(), estimator=estimator)
        state, found = strategy.init(np.zeros(DIM), 0), []
        for _ in range(60):
            values = strategy.ask(state).rows() @ A
            state, info = strategy.tell(state, esopt.Evals(values))
            found.append(np.square(info.gradient.mean - A).sum())
        errors[name] = np.mean(found[20:])

    assert errors["linear"] < 0.2 * errors["mean"]
