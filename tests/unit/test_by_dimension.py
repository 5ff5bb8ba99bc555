"""One strategy for few parameters, another one for many."""

from __future__ import annotations

import numpy as np
import pytest

import esopt


@pytest.mark.parametrize("dim", [3, 4])
def test_it_is_the_one_whose_dimension_it_is(dim: int) -> None:
    few, many = esopt.CMAES(n=6), esopt.GradientES(n=8, sigma=0.1, rule=esopt.SGD(0.05))
    chosen = few if dim <= 3 else many

    def f(x: np.ndarray) -> float:
        return float(np.square(x - 1.0).sum())

    found = [
        esopt.minimize(f, np.zeros(dim), strategy=strategy, generations=20, seed=5)
        for strategy in (esopt.ByDimension(few, many, limit=3), chosen)
    ]
    assert found[0].mean.tobytes() == found[1].mean.tobytes()
    assert found[0].evaluations == found[1].evaluations == 20 * chosen.n + 1  # and the mean of the end


def test_stop_rules_are_those_of_the_one_that_searches() -> None:
    either = esopt.ByDimension(esopt.CMAES(), esopt.Endless(esopt.CMAES()), limit=2)
    reasons = [
        set(esopt.minimize(lambda x: 0.0, np.zeros(dim), strategy=either, generations=30).reason) for dim in (2, 3)
    ]
    assert reasons == [{"flat"}, {"generations"}]


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="few"):
        esopt.ByDimension(esopt.CMAES)
    with pytest.raises(ValueError, match="limit must be a whole number, 0 or more, got -1"):
        esopt.ByDimension(limit=-1)
    assert esopt.ByDimension(esopt.CMAES(), esopt.OnePlusOneCMA()).keeps_values
    assert not esopt.ByDimension(esopt.CMAES(), esopt.SepCMA()).keeps_values
