"""Compiled runs: the whole result, to the bit, of the same run through ask and tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import esopt
from esopt import BIPOP, CMAES, IPOP, Antithetic, Compiled, GradientES, Objective, Outcome, Restarts, SepCMA, snes
from esopt.records import Goal

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


@numba.njit
def rosenbrock(x):
    total = 0.0
    for i in range(x.size - 1):
        total += 100.0 * (x[i + 1] - x[i] * x[i]) ** 2 + (1.0 - x[i]) ** 2
    return total


@numba.njit
def holes(x):
    """Fail here and there, and be infinite elsewhere."""
    if x[0] > 0.3 and x[1] > 0.2:
        return np.nan
    if x[2] > 0.8:
        return np.inf
    return (x * x).sum()


@numba.njit
def cliff(x):
    """Raise close to the optimum."""
    total = (x * x).sum()
    if total < 0.05:
        raise ZeroDivisionError
    return total


@numba.njit
def costly(x):
    return Outcome((x * x).sum(), 1 if x[0] > 0.0 else 3)


@numba.njit
def vandal(x):
    """Write to its argument."""
    value = (x * x).sum()
    x[:] = 7.0
    return value


@numba.njit
def rastrigin(x):
    return 10.0 * x.size + (x * x - 10.0 * np.cos(2.0 * np.pi * x)).sum()


@numba.njit
def nowhere(x):
    return np.nan if x[0] < 10.0 else 1.0


def compare(monkeypatch: pytest.MonkeyPatch, f: Any, x0: Any, **options: Any) -> esopt.Result:
    """Run with laps and without, compare everything but the time, and return the result."""
    laps = esopt.minimize(f, x0, **options)
    with monkeypatch.context() as patch:
        patch.setattr("esopt._generations.laps", lambda *_: None)
        plain = esopt.minimize(f, x0, **options)
    same(laps, plain)
    return laps


def same(a: esopt.Result, b: esopt.Result) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if name == "best":
            np.testing.assert_array_equal(value.x, other.x)
            assert value.value == other.value
        elif name != "seconds":
            np.testing.assert_equal(value, other)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run laps however slow the machine is."""
    monkeypatch.setattr("esopt._laps._LONG_SECONDS", np.inf)


@pytest.fixture
def generations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many generations every lap ran."""
    seen: list[int] = []
    for strategy in (CMAES, SepCMA, GradientES):
        run = strategy.run

        def watched(self: Any, state: Any, address: Any, goal: Goal, run: Any = run) -> Any:
            after, lap = run(self, state, address, goal)
            seen.append(lap.generations)
            return after, lap

        monkeypatch.setattr(strategy, "run", watched)
    return seen


@pytest.mark.parametrize(
    "strategy",
    [
        CMAES(),
        CMAES(n=7, active=False, sigma=np.linspace(0.1, 1.0, 6)),
        CMAES(sampler=Antithetic(), n=8),
        CMAES(n=40),
        CMAES(tolfun=1e-3, tolx=0.0),
        SepCMA(),
        SepCMA(sampler=Antithetic(), n=8),
        snes(),
        snes(n=40, sigma=np.linspace(0.1, 1.0, 6), sigma_lr=0.2),
        replace(snes(n=12), sampler=Antithetic()),
    ],
    ids=["cma", "odd n", "cma pairs", "large", "tolerances", "sep", "sep pairs", "snes", "snes rates", "snes pairs"],
)
@pytest.mark.parametrize(
    "options",
    [
        {"evaluations": 997},
        {"generations": 61},
        {"target": 1e-6, "evaluations": 20_000},
        {"evaluations": 30_000},
    ],
    ids=str,
)
def test_a_run_in_laps_has_the_bits_of_ask_and_tell(strategy, options, generations, monkeypatch):
    result = compare(monkeypatch, rosenbrock, np.zeros(6), strategy=strategy, seed=3, **options)

    assert sum(generations) == result.generations


@pytest.mark.parametrize("strategy", [CMAES(tolfun=1e-3), SepCMA(tolx=1e-3)], ids=["tolfun", "tolx"])
def test_tolerances_end_both_kinds_of_run(strategy, monkeypatch, generations):
    result = compare(monkeypatch, rosenbrock, np.zeros(3), strategy=strategy, seed=3)
    loose = {"tolfun", "tolfunhist"} if strategy.tolfun == 1e-3 else {"tolx"}

    assert set(result.reason) <= loose
    assert (
        result.evaluations
        < 0.8 * esopt.minimize(rosenbrock, np.zeros(3), strategy=type(strategy)(), seed=3).evaluations
    )
    assert sum(generations) >= result.generations


def test_one_dimension_and_wide_noise(monkeypatch):
    for dim in (1, 2, 65, 130):
        for strategy in (CMAES(), SepCMA(), snes()):
            compare(monkeypatch, rosenbrock, np.zeros(dim), strategy=strategy, generations=30)


def test_failed_and_infinite_values(monkeypatch, generations):
    for strategy in (CMAES(), SepCMA(n=5), snes()):
        result = compare(monkeypatch, holes, np.full(4, 0.5), strategy=strategy, seed=1, evaluations=3000)

        assert result.failures["nan"] > 0
    assert sum(generations) > 200


def test_an_exception_is_that_of_the_plain_run(monkeypatch):
    messages, results = [], []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr("esopt._generations.laps", lambda *_: None)
        with pytest.raises(esopt.EvaluationError) as caught:
            esopt.minimize(cliff, np.ones(4), strategy=CMAES(), evaluations=5000)
        messages.append(str(caught.value))
        results.append(caught.value.result)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    assert messages[0] == messages[1]
    assert results[0].generations > 5
    same(*results)


def test_exceptions_as_failures(monkeypatch):
    result = compare(monkeypatch, cliff, np.ones(4), strategy=CMAES(), evaluations=2000, on_error="nan")

    assert result.failures["exception"] > 0


def test_a_function_that_always_fails(monkeypatch):
    with pytest.raises(esopt.EvaluationError, match="all 8 evaluations of generation 0"):
        esopt.minimize(nowhere, np.zeros(4), strategy=CMAES(), evaluations=2000)


def test_steps_are_counted_and_limited(monkeypatch, generations):
    result = compare(monkeypatch, costly, np.ones(3), strategy=CMAES(), steps=500)

    assert 500 <= result.steps < 530 + 2 * 7
    assert generations


def test_a_function_that_writes_to_its_argument(monkeypatch):
    result = compare(monkeypatch, vandal, np.ones(4), strategy=CMAES(), evaluations=2000, target=1e-8)

    assert result.value <= 1e-8
    assert (result.x**2).sum() == result.value


@pytest.mark.parametrize(
    "strategy",
    [
        Restarts(CMAES(sigma=2.0)),
        Restarts(SepCMA(sigma=2.0), IPOP()),
        Restarts(CMAES(sigma=2.0), BIPOP(weighted=True), limit=3),
    ],
    ids=repr,
)
def test_restarts(strategy, monkeypatch, generations):
    result = compare(monkeypatch, rastrigin, np.full(4, 3.3), strategy=strategy, seed=2, evaluations=30_000)

    assert result.generations > 100


def test_restarts_of_a_strategy_without_laps(monkeypatch):
    inner = esopt.GradientES(sigma=0.5, n=8)

    compare(monkeypatch, rastrigin, np.full(4, 3.3), strategy=Restarts(inner), evaluations=500)


def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path, monkeypatch):
    whole = esopt.minimize(rosenbrock, np.zeros(5), strategy=CMAES(), evaluations=3000, seed=4)
    for first, second in ((True, True), (True, False), (False, True)):
        path = tmp_path / f"{first}{second}.npz"
        for laps, budget in ((first, 1203), (second, 3000)):
            with monkeypatch.context() as patch:
                if not laps:
                    patch.setattr("esopt._generations.laps", lambda *_: None)
                result = esopt.minimize(
                    rosenbrock, np.zeros(5), strategy=CMAES(), evaluations=budget, seed=4, checkpoint=path
                )
        same(result, whole)


def test_ties_and_plateaus(monkeypatch, generations):
    """Equal values share their weights, in both runs by the same sums."""
    stairs = numba.njit(lambda x: np.floor(2.0 * (x * x).sum()))
    for strategy in (snes(n=30), CMAES(n=30)):
        compare(monkeypatch, stairs, np.full(4, 1.3), strategy=strategy, seed=1, generations=40)
    assert sum(generations) >= 40


def test_other_settings_are_left_to_tell(monkeypatch, generations):
    """What is not SNES has no compiled run, and one whose sigma vanishes ends where the plain run does."""
    adam = replace(snes(), rule=esopt.Adam(0.1))
    decay = replace(snes(), weight_decay=0.01)
    rates = replace(snes(), scale_rule=esopt.Exponential(esopt.ExponentialDecay(0.1, 0.5, every=10)))
    for strategy in (adam, decay, rates, esopt.openai_es(n=8)):
        compare(monkeypatch, rosenbrock, np.zeros(4), strategy=strategy, seed=1, generations=9)
    assert not sum(generations)

    sphere = numba.njit(lambda x: (x * x).sum())
    result = compare(monkeypatch, sphere, np.ones(4), strategy=snes(), seed=1, evaluations=50_000)
    assert "scale" in result.reason
    assert sum(generations) > 100


def test_who_has_to_see_every_generation_does(generations):
    seen = []
    esopt.minimize(rosenbrock, np.zeros(3), strategy=CMAES(), generations=9, callback=lambda step: seen.append(step))
    esopt.minimize(rosenbrock, np.zeros(3), strategy=CMAES(), generations=9, noisy=True)
    seeded = numba.njit(lambda x, seed: (x * x).sum() + 1e-9 * seed)
    esopt.minimize(seeded, np.zeros(3), strategy=CMAES(), generations=9, seeded=True)

    assert len(seen) == 9
    assert not generations


def test_laps_end_in_time(monkeypatch, generations):
    esopt.minimize(rosenbrock, np.zeros(10), strategy=CMAES(), generations=3)
    result = esopt.minimize(rosenbrock, np.zeros(10), strategy=Restarts(CMAES()), seconds=0.5)

    assert set(result.reason) == {"seconds"}
    assert result.seconds < 2.0
    assert max(generations) > 10


def test_slow_functions_are_left_to_the_evaluator(generations, monkeypatch):
    monkeypatch.setattr("esopt._laps._LONG_SECONDS", 1e-3)

    @numba.njit
    def slow(x):
        total = 0.0
        for i in range(300_000):
            total += np.sin(x[0] * i)
        return total

    result = esopt.minimize(slow, np.zeros(3), strategy=CMAES(), generations=10)

    assert result.generations == 10
    assert sum(generations) < 5


def test_a_lap_is_pure_and_stops_at_its_goal():
    evaluator, strategy = Compiled(Objective(rosenbrock)), CMAES()
    state = strategy.init(np.zeros(4), 1)
    one, lap = strategy.run(state, evaluator.entry(), Goal(7, -np.inf, 2**62))
    two, again = strategy.run(state, evaluator.entry(), Goal(7, -np.inf, 2**62))

    assert (lap.generations, lap.evaluations) == (7, 56)
    assert lap.value == again.value == rosenbrock(lap.x)
    np.testing.assert_array_equal(one.factor, two.factor)
    assert state.generation == 0
    assert strategy.run(state, evaluator.entry(), Goal(7, lap.value, 2**62))[1].generations <= 7


def test_large_populations_learn_the_same_with_and_without_laps() -> None:
    """From 2^18 numbers on SepCMA holds no noise, and its sums are others: laps leave such generations to tell."""
    settings = {"x0": np.ones(9_000), "strategy": esopt.SepCMA(n=32), "generations": 6, "seed": 1}
    lapped = esopt.minimize(rosenbrock, **settings)
    plain = esopt.minimize(rosenbrock, **settings, callback=lambda step: None)

    np.testing.assert_array_equal(lapped.mean, plain.mean)
