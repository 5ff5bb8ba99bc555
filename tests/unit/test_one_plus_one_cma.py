"""The (1+1)-CMA-ES: beside a transcription of the papers, beside peers' figures, and what a failure is to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from tests.reference import full as twins
from tests.unit.test_large_scale import cigar, discus, ellipsoid, evaluations, sphere

Array = NDArray[np.float64]

D = 7
X0 = np.linspace(-1.0, 2.0, D)


def wavy(x: Array) -> Array:
    """Curved differently in every direction, with a wave: no symmetry hides a mistake."""
    return np.square(x - 0.3) @ np.linspace(1.0, 20.0, D) + np.sin(3.0 * x).sum(axis=-1) + 1.5 * x[..., 0] * x[..., 1]


@pytest.mark.parametrize("active", [True, False])
def test_the_papers(active: bool) -> None:
    """200 steps beside the transcription, with every kind of update in them."""
    es = esopt.Optimizer(esopt.OnePlusOneCMA(sigma=0.01, active=active), X0, seed=3)
    twin = twins.OnePlusOneCMA(X0, 0.01, float(wavy(X0)), active)
    for _ in range(200):
        eps = es.population().noise.rows().astype(np.float64)
        rows, x = twin.sample(eps), es.ask()
        np.testing.assert_allclose(x[:1], rows, rtol=0.0, atol=1e-9)
        twin.update(eps, wavy(rows))
        es.tell(wavy(x))
        assert es.state.sigma == pytest.approx(twin.sigma, rel=1e-9)
        np.testing.assert_allclose(es.state.factor, twin.A, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(es.state.factor @ es.state.path_c, twin.s, rtol=0.0, atol=1e-9)
        assert es.state.parents[0] == pytest.approx(twin.line[-1], rel=1e-9)

    assert twin.hits > 30
    assert twin.fast > 3
    assert (twin.punished > 10) == active
    assert np.linalg.cond(twin.A) > 1.3
    np.testing.assert_allclose(es.state.cov, twin.sigma**2 * twin.A @ twin.A.T, rtol=1e-8)


# Medians of three runs of pypop7 0.0.82 with sigma = 0.5: OPOA2010 (active) and OPOC2009.
FIGURES = [
    (True, sphere, 750),
    (True, ellipsoid, 3954),
    (True, cigar, 2528),
    *[
        pytest.param(*case, marks=pytest.mark.slow)
        for case in ((True, discus, 4503), (False, sphere, 794), (False, ellipsoid, 4178), (False, discus, 5993))
    ],
]


@pytest.mark.parametrize(("active", "f", "expected"), FIGURES)
def test_evaluations_are_those_of_peers(active: bool, f: Callable[[Array], Array], expected: int) -> None:
    found = np.median([evaluations(esopt.OnePlusOneCMA(active=active), f, 10, seed) for seed in (1, 2, 3)])

    assert abs(found / expected - 1.0) < 0.12


def told(state: Any, value: float, **settings: Any) -> Any:
    return esopt.OnePlusOneCMA(**settings).tell(state, esopt.Evals(np.array([value])))[0]


def test_a_failure_is_no_success_and_teaches_nothing() -> None:
    es = esopt.Optimizer(esopt.OnePlusOneCMA(sigma=0.3), X0, seed=1)
    for _ in range(60):
        es.tell(wavy(es.ask()))
    state = es.state
    failed, missed = told(state, np.nan), told(state, np.inf)

    assert failed.sigma == missed.sigma < state.sigma
    assert failed.success == missed.success < state.success
    assert np.array_equal(failed.mean, state.mean)
    assert np.array_equal(failed.parents, state.parents)
    assert np.array_equal(failed.factor, state.factor)
    assert not np.array_equal(missed.factor, state.factor)
    assert np.array_equal(told(state, np.inf, active=False).factor, state.factor)


def test_the_start_is_a_point_like_others() -> None:
    """It is evaluated, it may have failed, and the run fails only if nothing is known at all."""
    strategy = esopt.OnePlusOneCMA(n=1)
    state = strategy.init(X0, 1)
    rows = strategy.ask(state).rows()

    assert len(rows) == 2
    assert np.array_equal(rows[1], X0)
    after, _ = strategy.tell(state, esopt.Evals(np.array([3.0, 2.0])))
    assert after.parents[0] == 2.0
    assert np.array_equal(after.mean, X0)
    assert len(strategy.ask(after)) == 1
    after, _ = strategy.tell(state, esopt.Evals(np.array([3.0, np.nan])))
    assert after.parents[0] == 3.0
    assert np.array_equal(after.mean, rows[0])
    with pytest.raises(esopt.EvaluationError, match="all 2 evaluations of generation 0 failed"):
        strategy.tell(state, esopt.Evals(np.array([np.nan, np.nan])))


def test_a_miss_shortens_its_direction_alone() -> None:
    """With C = I and the candidate A z: the variance along z shrinks by 1 + c - c |z|^2, others grow by 1 + c."""
    strategy = esopt.OnePlusOneCMA(sigma=1.0)
    state = replace(strategy.init(np.zeros(D), 1), generation=1, parents=np.arange(5.0))
    z = strategy.ask(state).noise.rows()[0].astype(np.float64)
    c = min(0.4 / (D**1.6 + 1.0), 1.0 / (2.0 * z @ z - 1.0))
    after = told(state, 5.0)

    np.testing.assert_allclose(after.factor @ after.factor.T, (1.0 + c) * np.eye(D) - c * np.outer(z, z), atol=1e-12)
    assert np.array_equal(told(state, 4.0).factor, state.factor)


def test_rotations() -> None:
    """With the noise and x0 turned like f, the parent turns with them."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))
    means = []
    for rotation in (np.eye(D), turn):
        eps = np.random.default_rng(1).normal(size=(150, 1, D)) @ rotation.T
        strategy = esopt.OnePlusOneCMA()
        state = strategy.init(rotation @ X0, 1)
        for rows in eps:
            strategy = replace(strategy, sampler=esopt.Replay(rows))
            state, _ = strategy.tell(state, esopt.Evals(wavy(strategy.ask(state).rows() @ rotation)))
        means.append(state.mean @ rotation)

    assert np.abs(means[0] - X0).max() > 0.3
    assert np.abs(means[0] - means[1]).max() < 1e-8


@pytest.mark.parametrize("n", [4, 10])
def test_more_candidates(n: int) -> None:
    """(1+n): fewer generations, and more evaluations on a sphere."""
    one, many = (
        np.median([evaluations(esopt.OnePlusOneCMA(n=k), sphere, 10, seed) for seed in (1, 2, 3)]) for k in (1, n)
    )

    assert many / n < 0.7 * one < many < 4.0 * one


def test_it_stops_and_restarts() -> None:
    """Stop rules of the family end a run; restarts begin again with twice the candidates."""
    result = esopt.minimize(
        lambda x: float(ellipsoid(x)) + 1.0, np.ones(5), strategy=esopt.OnePlusOneCMA(), seed=2, evaluations=20_000
    )
    assert set(result.reason) <= {"tolfun", "tolfunhist"}
    assert result.evaluations < 4_000
    assert result.value == pytest.approx(1.0, abs=1e-10)

    es = esopt.Optimizer(esopt.Restarts(esopt.OnePlusOneCMA(), esopt.IPOP()), np.ones(3), seed=1)
    sizes = []
    while es.state.runs.runs < 2:
        es.tell(np.floor(sphere(es.ask()) * 3.0))
        sizes.append(es.population().n)
    assert sizes[0] == 1
    assert sizes[-1] == 4
    assert set(sizes) == {1, 2, 4}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: esopt.OnePlusOneCMA(n=0), "n must be at least 1"),
        (lambda: esopt.OnePlusOneCMA(sampler=esopt.Antithetic()), "multiple of 2 with the sampler Antithetic"),
        (lambda: esopt.OnePlusOneCMA(sigma=0.0), "sigma"),
    ],
)
def test_bad_settings(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
