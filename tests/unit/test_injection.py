"""Candidates from elsewhere: where they go, how far they may pull, and that nothing is hidden beside the state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import CMAES, Evals, Optimizer, SepCMA

BOTH = pytest.mark.parametrize("strategy", [CMAES(n=8, sigma=0.3), SepCMA(n=8, sigma=0.3)], ids=repr)


def bowl(rows: Any) -> Any:
    return np.square(np.asarray(rows) - 0.5) @ np.linspace(1.0, 4.0, np.shape(rows)[1])


def after(strategy: Any, x: Any, value: float | None = None) -> Optimizer:
    """Return an optimizer that was told a generation with ``x`` in it."""
    es = Optimizer(strategy, np.zeros(4), seed=2)
    es.tell(bowl(es.ask()))
    if x is not None:
        es.inject(x)
    values = bowl(np.clip(es.ask(), -1e9, 1e9))
    if value is not None:
        values[-1] = value
    es.tell(values)
    return es


@BOTH
def test_candidates_come_last_once(strategy):
    es = Optimizer(strategy, np.zeros(4), seed=2)
    before = es.population().rows()
    es.inject(np.full(4, 0.5))
    es.inject([[0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0]])
    rows = es.ask()

    np.testing.assert_array_equal(rows[:8], before)
    np.testing.assert_array_equal(rows[8:], [[0.5] * 4, [0.1, 0.2, 0.3, 0.4], [1.0] * 4])
    es.tell(bowl(rows))
    assert es.result.value == 0.0
    assert es.result.evaluations == 11
    assert len(es.ask()) == 8


@BOTH
def test_a_good_candidate_pulls_the_mean(strategy):
    """The step is longest toward the best row, and twice as far away it pulls no further: it is shortened."""
    alone, near = after(strategy, None), after(strategy, np.full(4, 0.5))
    far, further = after(strategy, np.full(4, 5e3), -1.0), after(strategy, np.full(4, 1e4), -1.0)

    assert np.linalg.norm(near.mean - 0.5) < np.linalg.norm(alone.mean - 0.5)
    np.testing.assert_allclose(far.mean, further.mean, rtol=1e-3)
    # The longest noise that counts is sqrt(d) + 2 d / (d + 2) long, and its weight is less than one.
    away = np.linalg.solve(np.diag(np.full(4, 0.3)), far.mean - alone.mean)
    assert 0.5 < np.linalg.norm(away) < 2.0 + 8.0 / 6.0


@BOTH
def test_a_bad_candidate_hardly_matters(strategy):
    alone, bad = after(strategy, None), after(strategy, np.full(4, -3.0))

    assert np.linalg.norm(bad.mean - alone.mean) < 0.1
    assert bad.state.history[0, 0] == alone.state.history[0, 0]


def test_noise_that_is_injected_again_is_what_it_was():
    """The candidate of a noise row counts as that row: nothing is shortened within the usual length."""
    from esopt.strategies._cma import white

    es = Optimizer(CMAES(n=8, sigma=np.array([0.1, 1.0, 2.0])), np.ones(3), seed=1)
    for _ in range(5):
        es.tell(bowl(es.ask()))
    state, noise = es.state, es.population().noise.rows()
    rows = white(es.ask(), state.mean, state.sigma, state.factor)
    lengths, longest = np.linalg.norm(noise, axis=1), np.sqrt(3) + 6.0 / 5.0

    np.testing.assert_allclose(rows, noise * np.minimum(1.0, longest / lengths)[:, None], rtol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 9, 40])
def test_elimination(dim):
    from esopt.strategies._elsewhere import _solve

    rows = esopt.Gaussian().noise(esopt.Key(4), dim + 3, dim).rows().astype(np.float64)
    matrix, columns = rows[:dim], rows[dim:].T
    matrix[0, 0] = 0.0 if dim > 1 else 1.0

    np.testing.assert_allclose(matrix @ _solve(matrix, columns), columns, atol=1e-10)


@BOTH
def test_a_gradient_is_a_direction(strategy):
    es = Optimizer(strategy, np.zeros(4), seed=2)
    for _ in range(6):
        es.tell(bowl(es.ask()))
    gradient = np.array([1.0, -2.0, 0.5, 0.0])
    es.inject(gradient=gradient)
    away = es.ask()[-1] - es.mean
    cov = es.state.cov if es.state.cov.ndim == 2 else np.diag(es.state.cov)

    expected = -2.0 * cov @ gradient / np.sqrt(gradient @ cov @ gradient)
    np.testing.assert_allclose(away, expected, rtol=1e-9, atol=1e-12)


def test_gradients_help():
    """An ellipsoid with its gradient takes well below the generations it takes without."""
    axes, needed = 10.0 ** np.linspace(0.0, 4.0, 10), []
    for injected in (False, True):
        es = Optimizer(CMAES(sigma=1.0), np.ones(10), seed=3, target=1e-8)
        while not es.stop():
            if injected:
                es.inject(gradient=2.0 * axes * es.mean)
            es.tell(np.square(es.ask()) @ axes)
        needed.append(es.generation)

    assert needed[1] < 0.75 * needed[0]


@BOTH
def test_injected_rows_are_in_a_checkpoint(strategy, tmp_path: Path):
    es = Optimizer(strategy, np.zeros(4), seed=2)
    es.tell(bowl(es.ask()))
    es.inject(np.full(4, 0.4))
    es.save(tmp_path / "run.npz")
    other = Optimizer(strategy, np.zeros(4), seed=2)
    other.load(tmp_path / "run.npz")

    np.testing.assert_array_equal(other.ask(), es.ask())
    es.tell(bowl(es.ask()))
    other.tell(bowl(other.ask()))
    np.testing.assert_array_equal(other.mean, es.mean)


@BOTH
def test_inject_and_tell_are_pure(strategy):
    state = strategy.init(np.zeros(4), 1)
    ahead = strategy.inject(state, np.ones((2, 4)))
    values = bowl(strategy.ask(ahead).rows())
    one, _ = strategy.tell(ahead, Evals(values))
    two, _ = strategy.tell(ahead, Evals(values))

    assert len(strategy.ask(state)) == 8
    assert len(ahead.injected) == 2
    np.testing.assert_array_equal(one.mean, two.mean)
    assert one.injected.shape == (0, 4)


def test_shapes_of_x0():
    es = Optimizer(CMAES(), np.zeros((2, 3)), seed=1)
    es.inject(np.ones((2, 3)), gradient=np.ones((2, 3)))
    es.inject(np.ones((5, 2, 3)))

    assert len(es.ask()) == 9 + 7


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "neither x nor gradient"),
        ({"x": np.ones(5)}, ValueError, r"x of shape \(5,\)"),
        ({"x": np.array([1.0, np.nan, 1.0, 1.0])}, ValueError, "not finite"),
        ({"x": ["a"] * 4}, TypeError, "real numbers"),
        ({"x": [[0.0] * 4, [1.0]]}, TypeError, "ragged"),
        ({"gradient": np.zeros(4)}, ValueError, "zero"),
        ({"gradient": np.ones((2, 4))}, ValueError, "several"),
    ],
)
def test_messages(options, error, message):
    with pytest.raises(error, match=message):
        Optimizer(CMAES(), np.zeros(4)).inject(**options)


WRAPPED = {
    "restarts": esopt.Restarts(CMAES(n=8, sigma=0.3)),
    "bounded": esopt.Bounded(CMAES(n=8, sigma=0.3), esopt.Smooth(-1.0, [2.0, 2.0, np.inf, 2.0])),
    "bounded restarts": esopt.Bounded(esopt.Restarts(SepCMA(n=8, sigma=0.3)), esopt.Reflect(-1.0, 2.0)),
}


@pytest.mark.parametrize("strategy", WRAPPED.values(), ids=WRAPPED)
def test_through_wrappers(strategy):
    es = Optimizer(strategy, np.zeros(4), seed=2)
    es.tell(bowl(es.ask()))
    candidates = np.array([[0.5] * 4, [-1.0, 2.0, 0.0, 1.9]])
    es.inject(candidates)
    rows = es.ask()

    assert len(rows) == 10
    np.testing.assert_allclose(rows[8:], candidates, rtol=0, atol=1e-12)
    es.tell(bowl(rows))
    assert es.result.value == pytest.approx(0.0, abs=1e-20)
    assert len(es.ask()) == 8


def test_a_gradient_within_bounds_is_one_of_the_search():
    """At the middle of the box the map is the identity, and the candidate that without bounds; nearer it is shorter."""
    gradient = np.array([1.0, -2.0, 0.5, 0.0])
    found = []
    for strategy in (CMAES(n=8, sigma=0.1), esopt.Bounded(CMAES(n=8, sigma=0.1), esopt.Smooth(-10.0, 10.0))):
        es = Optimizer(strategy, np.zeros(4), seed=2)
        es.inject(gradient=gradient)
        found.append(es.ask()[-1])
    np.testing.assert_array_equal(found[1], found[0])
    bounded = Optimizer(CMAES(n=8, sigma=0.1), np.full(4, -1.0), seed=2, bounds=(-1.0, 1.0))
    bounded.inject(gradient=gradient)
    assert (bounded.ask()[-1] >= -1.0).all()


def test_the_default_of_minimize_takes_candidates():
    es = Optimizer(esopt.Portfolio(), np.zeros(4), seed=2)
    for _ in range(30):
        es.tell(bowl(es.ask()))
    es.inject(np.full(4, 0.5))
    rows = es.ask()
    assert len(rows) > 1
    np.testing.assert_array_equal(rows[-1], np.full(4, 0.5))
    es.tell(bowl(rows))
    assert es.result.value == 0.0

    start = es.mean
    es.inject(gradient=np.array([1.0, 0.0, 0.0, 0.0]))
    away = es.ask()[-1] - start
    assert away[0] < 0.0


def test_candidates_outside_the_bounds():
    es = Optimizer(CMAES(), np.zeros(4), bounds=(-1.0, [1.0, 1.0, 1.0, 3.0]))
    with pytest.raises(ValueError, match=r"1\.5 in coordinate 2, outside the bounds"):
        es.inject([0.0, 0.0, 1.5, 2.0])
    with pytest.raises(TypeError, match="takes no candidates from elsewhere"):
        Optimizer(esopt.openai_es(), np.zeros(4), bounds=(-1.0, 1.0)).inject(np.zeros(4))


def test_who_cannot():
    with pytest.raises(TypeError, match="takes no candidates from elsewhere"):
        Optimizer(esopt.openai_es(), np.zeros(4)).inject(np.zeros(4))


@pytest.mark.parametrize("settings", [{"integer": [0]}, {"strategy": esopt.AugmentedLagrangian()}])
def test_advice_holds_for_integers_and_constraints(settings):
    strategy = settings.pop("strategy", esopt.Restarts(CMAES()))
    with pytest.raises(TypeError, match=r"Portfolio\(\); without integer= and constraints="):
        Optimizer(strategy, np.zeros(4), **settings).inject(np.zeros(4))


@BOTH
def test_a_candidate_from_the_end_of_the_numbers_pulls_no_further(strategy):
    far, further = after(strategy, np.full(4, 1e6), -1.0), after(strategy, np.array([1e300, 1e300, 1e300, 1e300]), -1.0)
    np.testing.assert_allclose(further.mean, far.mean, rtol=1e-5)


def rough(rows: Any) -> Any:
    rows = np.asarray(rows)
    mixed = 3.0 * np.abs(rows[:, 0] * rows[:, 1])  # so that it is no sum over coordinates
    return (10.0 + rows**2 - 10.0 * np.cos(2.0 * np.pi * rows)).sum(axis=1) + mixed


def test_first_turn_of_cma_in_a_portfolio_is_brief_also_when_injected():
    start = np.array([2.3, 1.7, 3.1, -2.2])
    for injected in (False, True):
        es = Optimizer(esopt.Portfolio(1.0), start, seed=1)
        if injected:
            es.inject(start)
        while es.state.turn != 2:
            es.tell(rough(es.ask()))
        assert es.state.used[2] == 0.0
        assert es.state.cma.runs.cap == 50 * 4


def test_no_candidates_change_nothing():
    for strategy in (esopt.Portfolio(), CMAES()):
        es, other = (Optimizer(strategy, np.zeros(4), seed=1) for _ in range(2))
        es.inject(np.empty((0, 4)))
        for _ in range(3):
            np.testing.assert_array_equal(es.ask(), other.ask())
            es.tell(bowl(es.ask()))
            other.tell(bowl(other.ask()))


def test_a_gradient_in_a_portfolio_starts_at_the_best_point():
    es = Optimizer(esopt.Portfolio(), np.zeros(4), seed=2)
    for _ in range(30):
        es.tell(bowl(es.ask()))
    assert es.state.used[2] == 0.0  # CMA-ES has not moved
    assert np.linalg.norm(es.mean - es.state.cma.mean) > 0.1
    es.inject(gradient=np.array([3.0, 0.0, 0.0, 0.0]))
    # sqrt(d) sigma against the gradient.
    np.testing.assert_allclose(es.ask()[-1], es.mean - np.array([2.0 * 0.5, 0.0, 0.0, 0.0]), atol=1e-12)


def test_candidates_after_ask_are_refused():
    es = Optimizer(CMAES(n=6), np.ones(4))
    assert not es.stop()  # this looks at the population, and is no ask()
    es.inject(np.zeros(4))
    rows = es.ask()
    assert len(rows) == 7
    with pytest.raises(ValueError, match=r"after ask\(\) or tell\(\) of generation 0, .* Call it before ask\(\)"):
        es.inject(np.zeros(4))
    es.tell((rows**2).sum(axis=1))
    es.inject(np.zeros(4))
    assert len(es.ask()) == 7
