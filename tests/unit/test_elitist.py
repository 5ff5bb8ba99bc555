"""The best candidate of a generation is evaluated again in the next one."""

from __future__ import annotations

import numpy as np
import pytest

import esopt

X0 = np.array([0.5, -1.0, 2.0])
INNER = esopt.CMAES(sigma=0.5, n=8)


def hole(rows: np.ndarray) -> np.ndarray:
    return np.square(rows - np.array([3.0, 0.0, 0.0])).sum(axis=1) < 1.5**2


def needle(rows: np.ndarray) -> np.ndarray:
    """Values of a slope with a hole around (3, 0, 0), of which the slope says nothing."""
    return np.where(hole(rows), -100.0, 0.0) + rows[:, 0]


def test_it_is_the_search_with_the_best_candidate_injected():
    strategy, injected = esopt.Elitist(INNER), INNER.init(X0, 3)
    state = strategy.init(X0, 3)
    for generation in range(5):
        rows = INNER.ask(injected).rows()
        np.testing.assert_array_equal(strategy.ask(state).rows(), rows)
        assert len(rows) == (8 if generation == 0 else 9)
        values = needle(rows)
        state, _ = strategy.tell(state, esopt.Evals(values))
        injected, _ = INNER.tell(injected, esopt.Evals(values))
        injected = INNER.inject(injected, rows[[values.argmin()]])
    np.testing.assert_array_equal(state.mean, injected.mean)


def test_the_best_one_stays_until_it_is_not():
    strategy = esopt.Elitist(INNER)
    state = strategy.init(X0, 1)
    first = strategy.ask(state).rows()[5]
    state, _ = strategy.tell(state, esopt.Evals(np.where(np.arange(8) == 5, -1.0, np.arange(8.0))))
    for _ in range(3):
        np.testing.assert_array_equal(strategy.ask(state).rows()[8], first)
        state, _ = strategy.tell(state, esopt.Evals(np.array([np.nan, *np.arange(7.0), -1.0])))
    second = strategy.ask(state).rows()[2]
    state, _ = strategy.tell(state, esopt.Evals(np.where(np.arange(9) == 2, -1.0, 5.0)))
    np.testing.assert_array_equal(strategy.ask(state).rows()[8], second)


def test_what_is_rare_is_not_forgotten():
    """A hole that random candidates hit now and then, beside a slope that leads away from it."""
    hits = []
    for strategy in (esopt.CMAES(sigma=1.0, n=10), esopt.Elitist(esopt.CMAES(sigma=1.0, n=10))):
        found = 0
        for seed in range(20):
            state = strategy.init(np.zeros(3), seed)
            for _ in range(40):
                state, _ = strategy.tell(state, esopt.Evals(needle(strategy.ask(state).rows())))
            found += bool(hole(state.mean[None, :])[0])
        hits.append(found)
    assert hits[1] >= hits[0] + 4


def test_it_needs_a_strategy_that_takes_candidates():
    with pytest.raises(TypeError, match="inner"):
        esopt.Elitist(esopt.CMAES)
    with pytest.raises(TypeError, match="no candidates from elsewhere"):
        esopt.Elitist(esopt.GradientES())
