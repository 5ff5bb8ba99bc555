"""Several starts, of which the better half goes on."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt.noise import child
from esopt.strategies.halving import HalvingState

X0 = np.array([0.5, -1.0, 2.0])
INNER = esopt.CMAES(sigma=1.0, n=6)


def follow(halving: esopt.Halving, prices: dict[int, float], generations: int) -> tuple[list[int], HalvingState]:
    """Return whose turn it was in each generation, with values near ``prices`` for each search, and the state."""
    state, turns = halving.init(X0, 3), []
    for _ in range(generations):
        turns.append(state.turn)
        rows = halving.ask(state).rows()
        state, _ = halving.tell(state, esopt.Evals(prices[state.turn] + 1e-3 * np.square(rows).sum(axis=1)))
    return turns, state


def test_the_better_half_goes_on():
    turns, state = follow(esopt.Halving(INNER, starts=5, generations=2), {0: 9.0, 1: 2.0, 2: 5.0, 3: 1.0, 4: 7.0}, 20)

    assert turns[:10] == [0, 1, 2, 3, 4] * 2
    assert turns[10:14] == [1, 3, 1, 3]
    assert turns[14:] == [3] * 6
    np.testing.assert_array_equal(np.flatnonzero(state.left), [3])
    assert [search.generation for search in state.searches] == [2, 4, 2, 10, 2]
    assert state.generation == 20


def test_the_last_search_is_what_it_would_be_alone():
    halving = esopt.Halving(INNER, starts=3, generations=2)
    turns, state = follow(halving, {0: 2.0, 1: 1.0, 2: 3.0}, 12)
    alone = INNER.init(X0, child(3, 1))
    for _ in range(turns.count(1)):
        alone, _ = INNER.tell(alone, esopt.Evals(1.0 + 1e-3 * np.square(INNER.ask(alone).rows()).sum(axis=1)))

    assert turns.count(1) == 8
    np.testing.assert_array_equal(state.mean, alone.mean)
    np.testing.assert_array_equal(halving.ask(state).rows(), INNER.ask(alone).rows())


def test_only_the_values_of_a_round_count():
    """A search that leads in the first round and falls back in the second one is dropped."""
    halving = esopt.Halving(INNER, starts=4, generations=1)
    state = halving.init(X0, 1)
    for value in (1.0, 4.0, 2.0, 3.0, 9.0, 8.0):
        state, _ = halving.tell(state, esopt.Evals(np.full(6, value) + np.arange(6)))

    assert state.turn == 2


def test_failures_do_not_win():
    halving = esopt.Halving(INNER, starts=2, generations=1)
    state = halving.init(X0, 1)
    for values in ([np.nan, np.nan, np.nan, np.inf, 7.0, 8.0], [np.nan, 6.0, 9.0, 9.0, 9.0, 9.0]):
        state, _ = halving.tell(state, esopt.Evals(np.array(values)))

    assert state.turn == 1


def test_searches_that_stop_wait_and_the_last_one_ends_the_run():
    inner = esopt.CMAES(sigma=1.0, n=6, tolx=1e-2)
    halving = esopt.Halving(inner, starts=2, generations=10_000)
    found = esopt.minimize(lambda x: float(x @ x), X0, strategy=halving, evaluations=100_000, seed=1)
    one = esopt.minimize(lambda x: float(x @ x), X0, strategy=inner, evaluations=100_000, seed=1)

    assert set(found.reason) == set(one.reason) == {"tolx"}
    assert 1.5 < found.evaluations / one.evaluations < 2.7


def test_it_finds_the_deepest_of_many_wells_more_often():
    def wells(x: np.ndarray) -> float:
        return float(np.sum((np.abs(x) - 3.0) ** 2 + x))

    once = esopt.CMAES(sigma=2.0)
    hits = [
        sum(
            esopt.minimize(wells, [1.0] * 3, strategy=strategy, evaluations=900, seed=seed).value < -8.0
            for seed in range(30)
        )
        for strategy in (once, esopt.Halving(once, starts=4, generations=4))
    ]
    assert hits[1] >= hits[0] + 5


def test_settings_that_cannot_be():
    with pytest.raises(TypeError, match="inner"):
        esopt.Halving(esopt.CMAES)
    for name in ("starts", "generations"):
        for bad in (0, 2.0, True):
            with pytest.raises(ValueError, match=name):
                esopt.Halving(**{name: bad})
    assert esopt.Halving.keeps_values
