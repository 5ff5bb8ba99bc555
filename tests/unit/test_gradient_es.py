"""GradientES and its named settings: one update written out from the rows, for each; defaults, scales and schedules."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import esopt
from esopt.shaping import cma_weights, nes_weights
from tests.reference.runs import bits, bumpy, bumpy_grad, run, sphere

Array = np.ndarray[Any, Any]
X0 = np.linspace(-1.0, 2.0, 5)


def one_step(strategy: esopt.GradientES, x0: Array = X0, seed: int = 3) -> tuple[Array, Array, Array, Any, esopt.Info]:
    """Noise (float64), values, scale before, state after, info of the first generation."""
    state = strategy.init(x0, seed)
    population = strategy.ask(state)
    values = np.array([bumpy(x) for x in population.rows()])
    grads = np.array([bumpy_grad(x) for x in population.rows()]) if "grads" in population.needs else None
    after, info = strategy.tell(state, esopt.Evals(values, grads))
    return population.noise.rows().astype(np.float64), values, np.asarray(state.scale), after, info


def test_default_is_adam_on_the_antithetic_estimate():
    eps, values, scale, after, info = one_step(esopt.GradientES(n=8))
    gradient = np.mean([v * e / scale for v, e in zip(values - values.mean(), eps, strict=True)], axis=0)

    np.testing.assert_allclose(info.gradient.mean, gradient, rtol=1e-5)
    np.testing.assert_allclose(after.mean, X0 - 0.01 * np.sign(gradient), rtol=1e-6)
    assert after.scale == 0.1


def test_openai_es():
    eps, values, scale, after, info = one_step(esopt.openai_es(n=10, sigma=0.02, lr=0.05, weight_decay=0.005))
    ranks = np.argsort(np.argsort(values)) / 9.0 - 0.5
    direction = (ranks @ eps) / (10 * 0.02)

    np.testing.assert_allclose(info.gradient.mean, direction, rtol=1e-5)
    decayed = direction + 0.005 / 0.02 * X0
    np.testing.assert_allclose(after.mean, X0 - 0.05 * decayed / (np.abs(decayed) + 1e-8), rtol=1e-9)
    assert (scale, after.scale) == (0.02, 0.02)


@pytest.mark.parametrize("top", [None, 1, 2])
def test_ars(top: int | None):
    """Algorithm 2 of Mania et al. (2018), with nu, alpha and b as there."""
    nu, alpha, b = 0.3, 0.05, top or 4
    eps, values, _, after, _ = one_step(esopt.ars(n=8, top=top, sigma=nu, lr=alpha))
    pairs, deltas = values.reshape(-1, 2), eps[::2]
    best = np.argsort(pairs.min(axis=1))[:b]
    deviation = np.std(pairs[best])
    # rewards are minus values
    step = alpha / (b * deviation) * sum((pairs[k, 1] - pairs[k, 0]) * deltas[k] for k in best)

    np.testing.assert_allclose(after.mean - X0, step, rtol=1e-5)


def test_pgpe():
    """Symmetric sampling with centred ranks, natural gradient, ClipUp; sigma in log space, limited to 20 %."""
    eps, values, sigma, after, _ = one_step(esopt.pgpe(n=8, max_speed=0.3, sigma_lr=2.0))
    ranks = np.argsort(np.argsort(values)) / 7.0 - 0.5
    np.testing.assert_allclose(sigma, 15 * 0.3 / math.sqrt(5), rtol=1e-15)

    gradient = sigma**2 * (ranks @ eps) / (8 * sigma)
    np.testing.assert_allclose(after.mean - X0, -0.15 * gradient / np.linalg.norm(gradient), rtol=1e-5)

    # a leave-one-out baseline: the mean rank of the other pairs, 0 minus what this pair contributes
    of_pair = ranks.reshape(-1, 2).sum(axis=1).repeat(2)
    centered = ranks + of_pair / 6.0
    log_gradient = centered @ (eps**2 - 1.0) / 8
    change = np.clip(-2.0 * log_gradient, -0.2, 0.2)
    np.testing.assert_allclose(after.scale / sigma - 1.0, change, rtol=1e-4, atol=1e-6)
    assert 0 < np.count_nonzero(np.abs(change) == 0.2) < 5


def test_snes():
    """Algorithm 6 of Wierstra et al. (2014)."""
    eps, values, sigma, after, _ = one_step(esopt.snes(n=9, sigma=0.7))
    order = np.argsort(values)
    u, s = nes_weights(9), eps[order]
    rate = (3 + math.log(5)) / (5 * math.sqrt(5))

    np.testing.assert_allclose(after.mean, X0 + sigma * (u @ s), rtol=1e-5)
    np.testing.assert_allclose(after.scale, sigma * np.exp(rate / 2 * (u @ (s**2 - 1.0))), rtol=1e-6)
    np.testing.assert_array_equal(sigma, 0.7)


def test_cma_weights_give_recombination_of_the_best_half():
    strategy = esopt.GradientES(
        sigma=0.3,
        n=6,
        sampler=esopt.Gaussian(),
        shaping=esopt.RecombinationWeights(cma_weights),
        estimator=esopt.Score(esopt.NoBaseline()),
        rule=esopt.SGD(1.0),
        natural=True,
    )
    eps, values, _, after, _ = one_step(strategy)
    best = (X0 + 0.3 * eps)[np.argsort(values)[:3]]

    np.testing.assert_allclose(after.mean, cma_weights(6)[:3] @ best, rtol=1e-6)


def test_bonnet():
    strategy = esopt.GradientES(sigma=0.2, n=6, estimator=esopt.Bonnet(), rule=esopt.SGD(0.1))
    eps, _, _, after, info = one_step(strategy)
    gradient = np.mean([bumpy_grad(X0 + 0.2 * e) for e in eps], axis=0)

    np.testing.assert_allclose(info.gradient.mean, gradient, rtol=1e-12)
    np.testing.assert_allclose(after.mean, X0 - 0.1 * gradient, rtol=1e-12)


def test_scalar_sigma_follows_its_gradient():
    strategy = esopt.GradientES(
        sigma=0.5, n=8, estimator=esopt.Score(esopt.NoBaseline(), with_scale=True), scale_rule=esopt.SGD(1e-4)
    )
    eps, values, _, after, info = one_step(strategy)
    by_sigma = np.mean(values * ((eps**2).sum(axis=1) - 5)) / 0.5

    assert info.gradient.scale == pytest.approx(by_sigma, rel=1e-6)
    assert after.scale == pytest.approx(0.5 * (1.0 - 1e-4 * 0.5 * by_sigma / 5), rel=1e-9)  # average over coordinates


def test_weight_decay_is_an_l2_penalty():
    plain = esopt.GradientES(n=8, rule=esopt.SGD(0.1))
    decayed = dataclasses.replace(plain, weight_decay=0.5)

    np.testing.assert_allclose(one_step(plain)[3].mean - one_step(decayed)[3].mean, 0.1 * 0.5 * X0, rtol=1e-9)


def test_natural_is_sigma_squared_times_the_gradient():
    sigma = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    plain = esopt.GradientES(sigma=sigma, n=8, rule=esopt.SGD(1.0))
    natural = dataclasses.replace(plain, natural=True)

    np.testing.assert_allclose(one_step(natural)[3].mean - X0, sigma**2 * (one_step(plain)[3].mean - X0), rtol=1e-9)


def test_diagonal_spreads_a_single_sigma():
    state = esopt.GradientES(sigma=0.3, diagonal=True).init(X0, 0)
    np.testing.assert_array_equal(state.scale, np.full(5, 0.3))
    state = esopt.GradientES(sigma=esopt.Radius(3.0), diagonal=True).init(X0, 0)
    np.testing.assert_allclose(state.scale, np.full(5, 3.0 / math.sqrt(5)), rtol=1e-15)
    assert esopt.GradientES(sigma=esopt.Radius(3.0)).init(X0, 0).scale == 3.0 / math.sqrt(5)


def test_sigma_may_be_a_schedule():
    strategy = esopt.GradientES(sigma=esopt.LinearDecay(1.0, 0.2, 4), n=4)
    es = esopt.Optimizer(strategy, X0)
    found = []
    for _ in range(6):
        found.append(es.population().scale)
        es.tell([bumpy(x) for x in es.ask()])

    assert found == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2], rel=1e-15)


@pytest.mark.parametrize(
    "sigma", [1, np.float32(0.5), np.int64(2), np.array(0.25), [0.1, 0.2, 0.3, 0.4, 0.5], range(1, 6)]
)
def test_sigma_of_any_type_becomes_float64(sigma: Any):
    state = esopt.GradientES(sigma=sigma, n=4).init(X0, 0)

    if np.ndim(sigma) == 0:
        assert type(state.scale) is float
    else:
        assert state.scale.dtype == np.float64
    np.testing.assert_array_equal(state.scale, np.asarray(sigma, np.float64))


def test_per_coordinate_sigma_may_have_the_shape_of_x0():
    sigma = np.arange(1.0, 7.0).reshape(2, 3)
    es = esopt.Optimizer(esopt.GradientES(sigma=sigma, n=2000), np.zeros((2, 3)))

    np.testing.assert_allclose(es.ask().std(axis=0), sigma, rtol=0.08)


@pytest.mark.parametrize(("dim", "n"), [(1, 4), (2, 6), (10, 10), (100, 18), (10**6, 46)])
def test_default_population_size(dim: int, n: int):
    """4 + 3 log d, rounded up to whole pairs, and two pairs at least."""
    assert esopt.GradientES().rows(dim) == n
    assert esopt.snes().rows(dim) == max(2, 4 + int(3 * math.log(dim)))
    assert esopt.GradientES(n=30).rows(dim) == 30


def test_tell_moves_the_clock_and_keeps_the_structure():
    for strategy in (esopt.GradientES(n=4), esopt.pgpe(n=4), esopt.snes(n=4), esopt.openai_es(n=4), esopt.ars(n=4)):
        state = strategy.init(X0, 1)
        before = bits(state)
        after, info = strategy.tell(state, esopt.Evals(np.arange(4.0)))

        assert bits(state) == before
        assert (state.generation, after.generation, info.generation) == (0, 1, 0)
        assert {k: v[:2] for k, v in bits(after)[1].items()} == {k: v[:2] for k, v in before[1].items()}


@given(st.integers(-3, 3), st.sampled_from([esopt.snes(n=8), esopt.pgpe(n=8), esopt.openai_es(n=8, weight_decay=0.0)]))
def test_translation(shift: int, strategy: esopt.GradientES):
    """Moving the start and the objective moves the run; powers of two keep the bits comparable."""
    moved = 2.0**shift * np.ones(5)
    here = run(esopt.Optimizer(strategy, X0), sphere, 3)
    there = run(esopt.Optimizer(strategy, X0 + moved), lambda x: sphere(x - moved), 3)

    np.testing.assert_allclose(there.mean - moved, here.mean, rtol=1e-9, atol=1e-9)


def test_raw_shaping_counts_infinity_as_a_failure_and_ranks_do_not():
    values = np.array([1.0, 2.0, math.inf, 3.0, 0.0, 5.0, 4.0, 6.0])
    for infinite in (math.inf, -math.inf, math.nan):
        values[2] = infinite
        raw = esopt.GradientES(n=8)
        after, info = raw.tell(raw.init(X0, 1), esopt.Evals(values))
        assert info.gradient.blocks == 3
        assert np.isfinite(after.mean).all()

        ranked = esopt.openai_es(n=8)
        after, info = ranked.tell(ranked.init(X0, 1), esopt.Evals(values))
        assert info.gradient.blocks == 4
        assert np.isfinite(after.mean).all()


def test_rank_based_runs_see_the_order_alone():
    for strategy in (esopt.snes(n=8), esopt.pgpe(n=8), esopt.openai_es(n=8)):
        plain = run(esopt.Optimizer(strategy, X0), sphere, 5)
        curved = run(esopt.Optimizer(strategy, X0), lambda x: math.log(sphere(x)) ** 3, 5)

        np.testing.assert_array_equal(plain.mean, curved.mean)


@pytest.mark.parametrize(
    ("strategy", "generations", "below"),
    [
        (esopt.GradientES(n=10), 1500, 1e-2),
        (esopt.openai_es(n=20, sigma=0.1, lr=0.05, weight_decay=0.0), 600, 1e-2),
        (esopt.ars(n=20, sigma=0.1, lr=0.02), 600, 1e-2),
        (esopt.pgpe(n=20), 600, 0.05),
        (esopt.snes(), 300, 1e-8),
        (esopt.snes(n=40), 200, 1e-8),
    ],
    ids=["default", "openai_es", "ars", "pgpe", "snes", "snes 40"],
)
def test_the_mean_gets_to_the_minimum(strategy: esopt.GradientES, generations: int, below: float):
    start = np.full(10, 3.0)
    es = run(esopt.Optimizer(strategy, start, seed=1), lambda x: sphere(x - 1.0), generations)

    assert sphere(es.mean - 1.0) < below * sphere(start - 1.0)


@pytest.mark.parametrize("dim", [10, 200])
def test_a_single_sigma_adapts_in_any_dimension(dim):
    strategy = dataclasses.replace(esopt.snes(), diagonal=False)
    result = esopt.minimize(lambda x: x @ x, np.ones(dim), strategy=strategy, evaluations=8_000)

    assert result.value < 1e-3
    assert np.isscalar(strategy.init(np.ones(dim), 0).scale)


def test_infinite_values_are_counted_where_they_are_left_out():
    values = np.array([np.inf, 1.0, 2.0, 3.0, -np.inf, 4.0, 5.0, np.nan])
    for shaping, expected in ((esopt.Raw(), {"infinite": 2, "nan": 1}), (esopt.CenteredRanks(), {"nan": 1})):
        strategy = esopt.GradientES(n=8, shaping=shaping)
        state = strategy.init(np.zeros(3), 0)
        _, info = strategy.tell(state, esopt.Evals(values, failures={"nan": 1}))
        assert dict(info.failures) == expected


def test_a_mean_that_candidates_cannot_leave_stops_the_run():
    strategy = esopt.GradientES(sigma=0.5)

    assert "scale" in strategy.stop(strategy.init(np.full(2, 1e18), 0))
    assert strategy.stop(strategy.init(np.array([1e18, 0.0]), 0)) == {}
    assert "diverged" in strategy.stop(
        dataclasses.replace(strategy.init(np.ones(3), 0), mean=np.array([0.0, np.nan, np.inf]))
    )
