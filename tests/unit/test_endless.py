"""A search that only its budget ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import esopt

X0 = np.array([1.0, -2.0, 0.5])


def test_it_is_the_inner_search_without_its_stop_rules() -> None:
    inner = esopt.CMAES(n=6, tolx=1e-3)
    plain, endless = inner.init(X0, 3), esopt.Endless(inner).init(X0, 3)
    stopped = None
    for generation in range(400):
        values = np.square(inner.ask(plain).rows()).sum(axis=1)
        np.testing.assert_array_equal(esopt.Endless(inner).ask(endless).rows(), inner.ask(plain).rows())
        plain, _ = inner.tell(plain, esopt.Evals(values))
        endless, _ = esopt.Endless(inner).tell(endless, esopt.Evals(values))
        if stopped is None and inner.stop(plain):
            stopped = generation
            assert esopt.Endless(inner).stop(endless) == {}
    assert stopped is not None
    assert stopped < 200
    np.testing.assert_array_equal(plain.mean, endless.mean)


def test_a_plateau_does_not_end_it() -> None:
    def plateau(x: np.ndarray) -> float:
        return 0.0 if float(x @ x) > 0.01 else -1.0

    reasons = [
        set(esopt.minimize(plateau, X0, strategy=strategy, generations=50, seed=1).reason)
        for strategy in (esopt.CMAES(), esopt.Endless(esopt.CMAES()))
    ]
    assert reasons == [{"flat"}, {"generations"}]


def test_what_cannot_go_on_ends() -> None:
    """A step that is lost in rounding, and a mean that is not finite."""

    def away(x: np.ndarray) -> float:
        return float(x @ x)

    found = esopt.minimize(away, X0 + 1e6, strategy=esopt.Endless(esopt.CMAES(sigma=1e-3)), evaluations=100_000, seed=1)
    assert "evaluations" not in found.reason
    strategy = esopt.Endless(esopt.GradientES())
    state = strategy.init(X0, 1)
    for broken in (replace(state, mean=np.array([0.0, np.nan, 1.0])), replace(state, scale=1e-40)):
        assert set(strategy.stop(broken)) <= {"diverged", "scale"}
        assert strategy.stop(broken)
    assert strategy.stop(state) == {}


def test_it_needs_a_strategy() -> None:
    with pytest.raises(TypeError, match="inner"):
        esopt.Endless(esopt.CMAES)
