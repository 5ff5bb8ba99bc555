"""What a run finds out by itself: learning rates from signal, noise and curvature, and population sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esopt import (
    SGD,
    Antithetic,
    CurvatureRate,
    Evals,
    Gaussian,
    Gradient,
    GradientES,
    Key,
    NormTest,
    Optimizer,
    Orthogonal,
    Population,
    SNRRate,
)
from esopt.testing._check import bits

Array = NDArray[np.float64]


def normals(key: int, n: int) -> Array:
    return Gaussian().noise(Key(77, key, 20), n, 1).rows().astype(np.float64).reshape(-1)


def run(
    strategy: GradientES, f: Callable[[Array], Array], x0: Array, generations: int, noise: float = 0.0, seed: int = 1
) -> tuple[list[Any], list[Any]]:
    """States and infos of a run; values have independent noise."""
    states, infos = [strategy.init(x0, seed)], []
    for generation in range(generations):
        rows = strategy.ask(states[-1]).rows()
        values = f(rows) + noise * normals(generation, len(rows))
        state, info = strategy.tell(states[-1], Evals(values))
        states.append(state)
        infos.append(info)
    return states, infos


def sphere(x: Array) -> Array:
    return 0.5 * np.square(x).sum(axis=1)


def estimate(mean: Array, stderr: Array, blocks: int = 8) -> Gradient:
    return Gradient(mean, stderr, blocks, 0.0, 0.0, 2 * blocks)


def population(mean: Array, n: int = 16) -> Population:
    return Population(mean, 0.1, Antithetic().noise(Key(1), n, mean.size))


def contraction(strategy: GradientES, dim: int, seeds: int) -> tuple[float, float]:
    """Mean of |x+|^2 / |x|^2 on 1/2 |x|^2 once the rates are known, and its standard error."""
    ratios = []
    for seed in range(seeds):
        state = strategy.init(np.ones(dim), seed)
        for generation in range(100):
            state = replace(state, mean=state.mean / np.linalg.norm(state.mean))
            state, _ = strategy.tell(state, Evals(sphere(strategy.ask(state).rows())))
            if generation >= 20:
                ratios.append(float(state.mean @ state.mean))
    return float(np.mean(ratios)), float(np.std(ratios) / np.sqrt(len(ratios)))


@pytest.mark.parametrize(("pairs", "dim"), [(10, 10), (20, 20), (50, 20), (10, 60)])
def test_snr_rate_contracts_the_sphere_as_fast_as_can_be(pairs: int, dim: int) -> None:
    """Best: 1 - N / (N + d + 1) a generation. The progress made is within 10 % of it, without a rate to tune."""
    best = pairs / (pairs + dim + 1)
    tuned, error = contraction(GradientES(sigma=0.1, n=2 * pairs, rule=SGD(1.0), rates=(SNRRate(),)), dim, 6)
    assert abs((1.0 - tuned) / best - 1.0) < 0.1 + 3.0 * error / best
    assert error < 0.04 * best


def test_snr_rate_knows_orthogonal_blocks() -> None:
    """Blocks of k orthogonal pairs have an unbiased noise share (d + 2 - k) / k: several of them, one unit each."""
    dim, k, blocks = 20, 10, 10
    strategy = GradientES(
        sigma=0.1, n=2 * k * blocks, sampler=Antithetic(Orthogonal(k)), rule=SGD(1.0), rates=(SNRRate(),)
    )
    noise = ((dim + 2) / k - 1) / blocks
    _, infos = run(strategy, lambda x: x @ np.ones(dim), np.ones(dim), 60)
    found = np.mean([info.scalars["rate"] for info in infos[20:]])
    assert abs(found - 1.0 / (1.0 + noise)) < 0.04


def test_snr_rate_by_hand() -> None:
    rate, at = SNRRate(), population(np.zeros(2))
    gradient = estimate(np.array([3.0, 0.0]), np.array([1.0, 1.0]))  # signal 9 - 2, times 1 + 2 / 8 for eight blocks
    factor, state = rate.factor(gradient, at, rate.init(2))
    assert factor == pytest.approx(8.75 / (8.75 + 2.0))
    lucky = estimate(np.array([9.0, 0.0]), np.array([0.1, 0.1]))
    again, _ = rate.factor(lucky, at, state)
    assert again == factor  # its own generation does not count
    silent = estimate(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    assert rate.factor(silent, at, rate.init(2))[0] == 0.0
    unknown = estimate(np.ones(2), np.full(2, np.nan), 1)
    assert rate.factor(unknown, at, rate.init(2))[0] == 1.0


def test_noise_stalls_a_fixed_rate_and_not_a_tuned_one() -> None:
    dim = 10
    for seed in (1, 2):
        fixed, _ = run(GradientES(sigma=0.1, n=20, rule=SGD(0.3)), sphere, np.ones(dim), 1000, 1.0, seed)
        tuned, infos = run(
            GradientES(sigma=0.1, n=20, rule=SGD(1.0), rates=(SNRRate(),)), sphere, np.ones(dim), 1000, 1.0, seed
        )
        stalled = np.mean([state.mean @ state.mean for state in fixed[-300:]])
        reached = np.mean([state.mean @ state.mean for state in tuned[-300:]])
        assert reached < stalled / 5.0
        assert 0.0 <= np.mean([info.scalars["rate"] for info in infos[-300:]]) < 0.1


@pytest.mark.parametrize("condition", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("height", [1e-3, 1e3])
def test_curvature_rate_needs_no_scale(condition: float, height: float) -> None:
    """Whatever f is multiplied with, the run is as fast as with a learning rate set by hand, or nearly."""
    dim, n, generations = 10, 60, 120
    curves = height * np.geomspace(1.0, condition, dim)

    def f(x: Array) -> Array:
        return 0.5 * np.square(x) @ curves

    def end(strategy: GradientES) -> float:
        return float(f(run(strategy, f, np.ones(dim), generations)[0][-1].mean[None])[0] / f(np.ones((1, dim)))[0])

    tuned = end(GradientES(sigma=0.01, n=n, rule=SGD(1.0), rates=(CurvatureRate(), SNRRate())))
    by_hand = min(end(GradientES(sigma=0.01, n=n, rule=SGD(lr / curves.max()))) for lr in (0.25, 0.5, 1.0, 1.5))
    assert np.log(tuned) < 0.75 * np.log(by_hand) or tuned < 1e-20


def test_curvature_is_found() -> None:
    """Right within 10 % for 15 pairs in 20 dimensions, where secants that keep their noise are 2.4 L."""
    dim, curve = 20, 7.0
    strategy = GradientES(sigma=0.1, n=30, rule=SGD(1.0), rates=(CurvatureRate(), SNRRate()))
    states, _ = run(strategy, lambda x: curve * sphere(x), np.ones(dim), 120)
    factors = [state.rates[0].factor for state in states[40:]]
    assert abs(np.median(factors) * curve - 1.0) < 0.1


def test_first_step_is_as_long_as_the_search_is_wide() -> None:
    rate = CurvatureRate()
    gradient = estimate(np.array([3.0, 4.0]), np.zeros(2))
    factor, _ = rate.factor(gradient, population(np.zeros(2)), rate.init(2))
    assert factor * 5.0 == pytest.approx(0.1 * np.sqrt(2.0))
    diagonal = Population(np.zeros(2), np.array([0.3, 0.4]), Antithetic().noise(Key(1), 4, 2))
    assert rate.factor(gradient, diagonal, rate.init(2))[0] * 5.0 == pytest.approx(0.5)
    factored = Population(np.zeros(2), np.diag([0.3, 0.4]), Antithetic().noise(Key(1), 4, 2))
    assert rate.factor(gradient, factored, rate.init(2))[0] * 5.0 == pytest.approx(0.5)


def test_norm_test_asks_for_enough_rows() -> None:
    """On a slope, N pairs have the variance (d + 1) / N |a|^2: the test is passed from N = (d + 1) / ratio^2."""
    dim = 30
    for ratio in (1.0, 0.5):
        strategy = GradientES(sigma=0.1, n=8, sizing=NormTest(most=10_000, ratio=ratio), rule=SGD(1e-9))
        _, infos = run(strategy, lambda x: x @ np.ones(dim), np.zeros(dim), 60)
        found = np.mean([info.scalars["n"] for info in infos[30:]])
        assert found == pytest.approx(2.0 * (dim + 1) / ratio**2, rel=0.15)


def test_population_grows_near_the_optimum_and_is_capped() -> None:
    dim = 10
    strategy = GradientES(sigma=0.1, n=20, rule=SGD(0.3), sizing=NormTest(most=400))
    states, infos = run(strategy, sphere, 30.0 * np.ones(dim), 80, noise=1.0)
    sizes = np.array([state.n for state in states])
    rows = np.array([info.gradient.evaluations for info in infos])
    assert np.array_equal(rows, sizes[:-1])
    assert sizes[:8].max() <= 60
    assert sizes.max() == sizes[-1] == 400
    assert np.all(sizes[1:] <= np.ceil(1.5 * sizes[:-1] / 2) * 2)
    assert np.all(sizes % 2 == 0)


def test_budgets_count_the_rows_that_were_used() -> None:
    strategy = GradientES(sigma=0.1, n=20, rule=SGD(0.3), sizing=NormTest(most=400))
    es = Optimizer(strategy, np.ones(10), seed=1, evaluations=3000)
    told = 0
    while not es.stop():
        rows = es.ask()
        told += len(rows)
        es.tell(sphere(rows) + normals(es.generation, len(rows)))
    assert es.result.evaluations == told <= 3000
    assert told + len(es.population()) > 3000


def test_resumed_runs_end_in_the_same_bits(tmp_path: Path) -> None:
    strategy = GradientES(sigma=0.1, n=12, rule=SGD(1.0), rates=(CurvatureRate(), SNRRate()), sizing=NormTest(most=100))

    def advance(es: Optimizer, until: int) -> None:
        while es.generation < until:
            rows = es.ask()
            es.tell(sphere(rows) + normals(es.generation, len(rows)))

    whole, part, resumed = (Optimizer(strategy, np.ones(6), seed=3) for _ in range(3))
    advance(whole, 40)
    advance(part, 23)
    part.save(tmp_path / "run.npz")
    resumed.load(tmp_path / "run.npz")
    advance(resumed, 40)
    assert bits(resumed.state) == bits(whole.state)
    assert whole.state.n > 12


def test_nothing_is_tuned_unless_asked_for() -> None:
    states, infos = run(GradientES(n=8), sphere, np.ones(4), 3)
    assert infos[-1].scalars == {}
    assert states[-1].rates == ()
    assert states[-1].sizing is None
    assert [state.n for state in states] == [8] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SNRRate(0.5), "generations must be at least 1"),
        (lambda: CurvatureRate(decay=1.0), "decay must be"),
        (lambda: CurvatureRate(growth=1.0), "growth"),
        (lambda: NormTest(most=0), "most must be"),
        (lambda: NormTest(most=10, least=20), "least must not be above most"),
        (lambda: NormTest(most=10, ratio=0.0), "ratio must be"),
        (lambda: GradientES(rates=SNRRate()), "rates must be a tuple"),
        (lambda: GradientES(rates=(SNRRate,)), "rate must be an instance"),
        (lambda: GradientES(sizing=SNRRate()), "sizing must follow"),
    ],
)
def test_bad_settings(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
