"""Regression and Coordinates as parts: what they refuse, what they say, and how they run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Antithetic, Coordinates, Evals, Gaussian, GradientES, Key, Law, Population, Regression
from esopt.estimators.regression import RegressionState

A = np.linspace(1.0, -0.5, 6)
PAST = RegressionState(np.stack([A, A**2]))


def bent(x: Any) -> Any:
    return x @ A + np.square(x).sum(axis=-1) + (x**3).sum(axis=-1)


def population(sampler: Any, n: int, dim: int = 6, scale: Any = 0.3) -> Population:
    return Population(np.zeros(dim), scale, sampler.noise(Key(3), n, dim))


@pytest.mark.parametrize("recycle", [-1, 1.5, True, None])
def test_recycle_must_be_a_whole_number(recycle: Any) -> None:
    with pytest.raises(ValueError, match="recycle must be a whole number"):
        Regression(recycle)


def test_recycled_rows_have_no_utilities() -> None:
    assert not Regression().raw_only
    with pytest.raises(ValueError, match="needs the values as they are"):
        GradientES(estimator=Regression(1), shaping=esopt.CenteredRanks())


def test_ranks_are_regressed_as_they_are() -> None:
    f = GradientES(estimator=Regression(), shaping=esopt.CenteredRanks(), n=8)
    state = f.init(np.zeros(2), 0)
    rows = f.ask(state).rows()
    infos = [f.tell(state, Evals(values))[1] for values in (rows @ A[:2], np.exp(rows @ A[:2]))]

    assert infos[0].gradient.mean.tolist() == infos[1].gradient.mean.tolist()


class Double:
    def apply(self, eps: Any) -> Any:
        return 2.0 * eps


def test_a_transform_is_refused() -> None:
    people = population(Gaussian(), 8, scale=Double())
    with pytest.raises(ValueError, match=r"Regression\(\) got the scale"):
        Regression().estimate(people, Evals(bent(people.rows())), Regression().init(6))


@pytest.mark.parametrize(("sampler", "n"), [(Gaussian(), 4), (Antithetic(), 6)], ids=repr)
def test_fewer_directions_say_so(sampler: Any, n: int) -> None:
    people = population(sampler, n)
    found = Regression().estimate(people, Evals(bent(people.rows())), Regression().init(6))[0]

    assert found.notes["rank"] == 3
    assert found.notes["regression"] == (
        "minimum norm: the projection on 3 of 6 dimensions, on average 0.5 of the gradient"
    )
    assert np.isnan(found.mean_stderr).all()
    assert np.isfinite(found.value_stderr)


def test_rows_without_information() -> None:
    """Equal rows, a constant coordinate, constant values, a single row: no warnings, no nan in the estimate."""
    rows = np.tile(np.arange(3.0), (5, 1))
    flat = np.column_stack([np.arange(6.0), np.ones(6), np.arange(6.0) ** 2])
    for eps, values in ((rows, np.ones(5)), (rows, np.arange(5.0)), (flat, np.arange(6.0)), (rows[:1], np.ones(1))):
        people = Population(np.zeros(3), 0.5, esopt.Given(eps))
        found = Regression().estimate(people, Evals(values), Regression().init(3))[0]
        assert np.isfinite(found.mean).all()
        assert np.isnan(found.mean_stderr).all()
    people = Population(np.zeros(3), 0.5, esopt.Given(flat))
    found = Regression().estimate(people, Evals(np.arange(6.0)), Regression().init(3))[0]
    assert np.allclose(found.mean, [2.0, 0.0, 0.0], atol=1e-10)


@pytest.mark.parametrize("sampler", [Gaussian(), Antithetic()], ids=repr)
def test_a_recycled_direction_that_failed_is_left_out(sampler: Any) -> None:
    """As if it had not been tried; and nan in either side is enough."""
    people = Regression(2).prepare(population(sampler, 20), PAST)
    values = bent(people.rows())
    values[people.tagged("past")[1]] = np.nan
    found = Regression(2).estimate(people, Evals(values), PAST)[0]
    other = RegressionState(PAST.past[1:] - PAST.past[1:] @ A / (A @ A) * A)  # what is left of it after the first
    fewer = Regression(2).prepare(population(sampler, 20), other)
    expected = Regression(2).estimate(fewer, Evals(bent(fewer.rows())), other)[0]

    assert np.allclose(found.mean, expected.mean, atol=1e-10)
    assert np.allclose(found.mean_stderr, expected.mean_stderr, atol=1e-10)


def test_the_past_grows_and_is_cut() -> None:
    strategy = GradientES(estimator=Regression(2), n=4)
    state, sizes = strategy.init(np.ones(6), 0), []
    for _ in range(4):
        people = strategy.ask(state)
        sizes.append(len(people))
        state, info = strategy.tell(state, Evals(bent(people.rows())))
        assert state.estimator.past[0].tolist() == info.gradient.mean.tolist()

    assert sizes == [4, 6, 8, 8]
    assert len(state.estimator.past) == 2


def test_budgets_count_recycled_rows() -> None:
    es = esopt.Optimizer(GradientES(estimator=Regression(1), n=4), np.ones(6), evaluations=15)
    while not es.stop():
        es.tell([bent(x) for x in es.ask()])

    assert es.result.evaluations == 10  # 4 + 6; the next 6 do not fit


def test_recycling_pays_in_a_long_valley() -> None:
    """Few directions in many dimensions, and a gradient that stays: fewer evaluations than without."""
    bend = np.logspace(0.0, -3.0, 60)
    values = {}
    for recycle, n in ((0, 8), (1, 6)):
        sampler = Antithetic(esopt.Orthogonal())
        strategy = GradientES(sigma=1e-3, n=n, sampler=sampler, estimator=Regression(recycle), rule=esopt.SGD(1.0))
        result = esopt.minimize(
            lambda x: 0.5 * np.square(x) @ bend, np.ones(60), strategy=strategy, evaluations=1000, seed=2
        )
        values[recycle] = 0.5 * np.square(result.mean) @ bend

    assert values[1] < 0.8 * values[0]


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_coordinates_need_a_count(k: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="Coordinates"):
        Coordinates(k)


def test_coordinates_are_different_and_fresh() -> None:
    """A block has no coordinate twice, beyond d a new set begins, and generations choose anew."""
    rows = [Coordinates().noise(Key(1, g), 5, 50).rows() for g in range(200)]
    chosen = np.array([np.abs(eps).argmax(axis=1) for eps in rows])
    assert all((eps != 0.0).sum() == 5 for eps in rows)
    assert all(len(set(row)) == 5 for row in chosen.tolist())
    assert abs(np.bincount(chosen.ravel(), minlength=50) - 20.0).max() < 5.0 * np.sqrt(20.0)
    two = Coordinates(6).noise(Key(1), 6, 3).rows()
    assert (np.abs(two[:3]).sum(axis=0) > 0).all()
    assert (np.abs(two[3:]).sum(axis=0) > 0).all()

    noise = Antithetic(Coordinates()).noise(Key(2), 12, 6)
    assert (noise.block, noise.law) == (12, Law.COORDINATES)
    assert np.array_equal(np.abs(noise.rows()[::2]) @ np.ones(6), np.full(6, np.sqrt(6), np.float32))


def test_central_differences_are_an_optimiser() -> None:
    """Newton's step on 1/2 |x - c|^2 from 2d values, as a strategy."""
    strategy = GradientES(sigma=1e-3, n=12, sampler=Antithetic(Coordinates()), rule=esopt.SGD(1.0))
    result = esopt.minimize(lambda x: 0.5 * np.square(x - A).sum(), np.zeros(6), strategy=strategy, generations=1)

    assert np.abs(result.mean - A).max() < 1e-6
    people = population(Coordinates(), 6)
    with pytest.raises(ValueError, match="unit vector"):
        esopt.Score(with_scale=True).prepare(people, esopt.Score().init(6))
