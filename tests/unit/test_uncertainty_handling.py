"""UH-CMA-ES: the measure beside a transcription of the paper, and what it does to evaluations and sigma."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt.strategies.uncertainty_handling import _compare


def measure(old: list[float], new: list[float], again: list[int]) -> float:
    """Section IV-A of the paper, word by word; rows ``again`` were evaluated twice."""
    n, both = len(old), sorted([*old, *new])

    def limit(rank: float) -> float:
        return float(np.percentile([abs(r - rank) for r in range(1, 2 * n)], 0.2 * 50))

    total = 0.0
    for i in again:
        a, b = both.index(new[i]) + 1, both.index(old[i]) + 1
        change = a - b - np.sign(a - b)
        total += 2 * abs(change) - limit(a - (new[i] > old[i])) - limit(b - (old[i] > new[i]))
    return total / len(again)


@pytest.mark.parametrize("again", [1, 2, 5])
def test_the_measure_is_that_of_the_paper(again: int) -> None:
    rng = np.random.default_rng(again)
    for _ in range(20):
        old = rng.standard_normal(10)
        new = old.copy()
        new[:again] += rng.standard_normal(again)
        # Equal values of a row that was evaluated once take two neighbouring ranks; tiny numbers keep them apart.
        apart = new + np.where(np.arange(10) < again, 0.0, 1e-9)
        found, values = _compare(old, new, again)

        assert found == pytest.approx(measure(list(old), list(apart), list(range(again))))
        np.testing.assert_allclose(np.sort(values), np.sort((old + new) / 2.0))
        assert np.argsort(values)[0] == np.argmin(old) or again


def test_rank_sums_order_the_values_and_failures_come_last() -> None:
    _, values = _compare(np.array([1.0, 5.0, 3.0, np.nan]), np.array([9.0, 5.0, 3.0, np.nan]), 1)
    # ranks: 1 -> 1, 3 -> 2 3, 5 -> 4 5, 9 -> 6; sums 7, 9, 5
    assert list(np.argsort(values[:3])) == [2, 0, 1]
    np.testing.assert_array_equal(values, [5.0, 5.0, 3.0, np.nan])


def test_certain_values_need_one_evaluation_and_are_left_alone() -> None:
    plain, handled = (
        esopt.Optimizer(strategy, np.ones(5), seed=1)
        for strategy in (esopt.CMAES(), esopt.UncertaintyHandling(esopt.CMAES()))
    )
    for _ in range(30):
        plain.tell(np.square(plain.ask()).sum(axis=1))
        info = handled.tell(np.square(handled.ask()).sum(axis=1))
        assert info.scalars["times"] == 1.0
        assert info.scalars["uncertainty"] < 0.0
    np.testing.assert_array_equal(plain.mean, handled.mean)


def test_a_constant_function_is_certain() -> None:
    es = esopt.Optimizer(esopt.UncertaintyHandling(), np.ones(3), seed=1)
    for _ in range(5):
        assert es.tell(np.zeros(len(es.ask()))).scalars["uncertainty"] < 0.0


def test_noise_raises_evaluations_to_the_limit_and_then_sigma() -> None:
    rng = np.random.default_rng(1)
    es = esopt.Optimizer(esopt.UncertaintyHandling(limit=4, memory=0.8), np.ones(5), seed=1)
    times, sigmas = [], [0.5]
    for _ in range(60):
        info = es.tell(rng.standard_normal(len(es.ask())))
        times.append(info.scalars["times"])
        sigmas.append(es.state.inner.sigma / info.scalars["sigma"])
    assert times[:5] == [1.0, 2.0, 2.0, 3.0, 4.0]
    assert max(times) == 4.0
    assert set(np.round(sigmas[-10:], 9)) <= {1.0, round(1.0 + 2.0 / 15.0, 9)}
    assert max(sigmas[1:]) == pytest.approx(1.0 + 2.0 / 15.0)


def test_large_populations_evaluate_a_tenth_again() -> None:
    strategy = esopt.UncertaintyHandling(esopt.CMAES(n=25))
    state, counts = strategy.init(np.ones(3), 1), []
    for _ in range(8):
        population = strategy.ask(state)
        counts.append(len(population) - 25)
        seeds = population.seeds
        assert len(set(seeds)) == len(seeds)
        np.testing.assert_array_equal(population.rows()[25:], population.rows()[: counts[-1]])
        state, _ = strategy.tell(state, esopt.Evals(np.square(population.rows()).sum(axis=1)))
    assert sum(counts) == 20
    assert set(counts) == {2, 3}


def test_what_cannot_be_handled_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        esopt.UncertaintyHandling(limit=0)
    with pytest.raises(ValueError, match="memory"):
        esopt.UncertaintyHandling(memory=1.0)
    with pytest.raises(TypeError, match="sigma"):
        esopt.UncertaintyHandling(esopt.GradientES()).init(np.ones(3), 1)
    with pytest.raises(ValueError, match='share="pair"'):
        esopt.UncertaintyHandling(esopt.CMAES(share="generation"))
