"""minimize: the README's first lines, budgets to the call, what x means, callbacks, interrupts and checkpoints."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

import esopt
from esopt._defaults import default_strategy
from tests.reference.runs import bumpy, bumpy_grad, outcome, rosenbrock, rosenbrock_grad, run, sphere

Array = np.ndarray[Any, Any]
X0 = np.linspace(-1.0, 2.0, 5)


class Counted:
    """An objective that counts its calls, and does something at one of them."""

    def __init__(self, f: Callable[..., Any] = sphere, at: int = 0, action: Callable[[], Any] = lambda: None):
        self.f, self.at, self.action, self.calls = f, at, action, 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            self.action()
        return self.f(*arguments)


def interrupt() -> None:
    raise KeyboardInterrupt


# The first screen


def test_the_first_example():
    result = esopt.minimize(lambda x: ((x - 3) ** 2).sum(), x0=[0.0] * 10, evaluations=20_000)

    np.testing.assert_allclose(result.x, 3.0, atol=1e-8)
    assert result.value < 1e-15
    assert 19_980 < result.evaluations <= 20_000
    assert result.success
    assert set(result.reason) == {"evaluations"}
    assert "budget of evaluations is used up" in str(result)
    assert OptimizeResult(**dict(result)).nfev == result.evaluations


def test_the_default_gets_through_a_curved_valley():
    result = esopt.minimize(rosenbrock, np.zeros(3), evaluations=20_000, seed=1)

    assert result.value < 0.1  # 2.0 at the start
    assert rosenbrock(result.x) == result.value


def test_minimize_is_the_ask_and_tell_loop():
    result = esopt.minimize(bumpy, X0, strategy=esopt.GradientES(n=8), evaluations=100, seed=4)
    es = run(esopt.Optimizer(esopt.GradientES(n=8), X0, seed=4, evaluations=99), bumpy)

    assert result.evaluations == es.result.evaluations + 1 == 97
    assert result.best.value == min(es.result.value, bumpy(es.mean))
    np.testing.assert_array_equal(result.mean, es.mean)


# Budgets


@given(st.integers(2, 60), st.integers(1, 6), st.integers(0, 3))
def test_no_call_beyond_the_budget_and_every_call_is_counted(evaluations: int, pairs: int, seed: int):
    f, n = Counted(), 2 * pairs
    if evaluations < n + 1:
        with pytest.raises(ValueError, match=f"evaluations={evaluations} is less than one generation of {n}|leaves"):
            esopt.minimize(f, X0, strategy=esopt.GradientES(n=n), evaluations=evaluations, seed=seed)
        assert f.calls == 0
    else:
        result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=n), evaluations=evaluations, seed=seed)
        assert f.calls == result.evaluations <= evaluations
        assert evaluations - f.calls < n
        assert result.generations == (evaluations - 1) // n


@pytest.mark.parametrize("final", [0, 1, 7, 30])
def test_a_noisy_budget_includes_the_final_evaluations(final: int):
    f = Counted()
    strategy = esopt.GradientES(n=8)
    result = esopt.minimize(f, X0, strategy=strategy, evaluations=100, noisy=True, final_evaluations=final)

    assert f.calls == result.evaluations == (100 - final) // 8 * 8 + final


@dataclass(frozen=True)
class Counting:
    """An evaluator whose state counts; the value of a candidate is that count."""

    seen: list = field(default_factory=list)

    def init(self):
        return 100

    def evaluate(self, population, state):
        self.seen.append(state)
        return esopt.Evals(np.full(len(population), float(state)) + np.arange(len(population))), state + 1

    def close(self):
        pass


def test_the_evaluators_state_is_seen_by_callbacks_by_the_final_evaluation_and_in_the_result():
    evaluator, steps = Counting(), []
    strategy = esopt.GradientES(n=4)
    settings = dict(strategy=strategy, evaluator=evaluator, noisy=True, generations=3)
    result = esopt.minimize(None, X0, callback=steps.append, final_evaluations=1, **settings)

    assert [step.evaluator_state for step in steps] == [101, 102, 103]
    assert evaluator.seen == [100, 101, 102, 103]
    assert result.evaluator_state == 103
    assert result.value == 103.0
    assert esopt.minimize(None, X0, final_evaluations=0, **settings).evaluations == 12
    assert len(evaluator.seen) == 7


def test_without_a_budget_there_is_one():
    f = Counted()
    result = esopt.minimize(f, [1.0, 2.0])

    assert f.calls == result.evaluations
    assert 11_000 < result.evaluations <= 12_000  # a large generation that does not fit is not begun
    assert set(result.reason) == {"evaluations"}


def test_a_run_that_cannot_get_any_closer_stops():
    result = esopt.minimize(sphere, [1.0], strategy=esopt.snes(), evaluations=50_000)

    assert set(result.reason) == {"scale"}
    assert "the run has converged" in result.message
    assert result.value < 1e-290
    assert result.success


def test_generations():
    f = Counted()
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), generations=7)

    assert (result.generations, result.evaluations, f.calls) == (7, 29, 29)
    assert result.reason == {"generations": 7.0}


def test_target_ends_the_run_in_its_generation():
    f = Counted()
    result = esopt.minimize(f, X0, strategy=esopt.snes(n=8), target=1e-3, seed=1)

    assert set(result.reason) == {"target"}
    assert result.value <= 1e-3
    assert f.calls == result.evaluations == result.generations * 8 + 1
    assert 1 < result.generations < 500


@pytest.mark.parametrize("seeded", [False, True])
def test_a_lucky_draw_is_no_target_reached(seeded: bool):
    """The value is 10 everywhere, the noise 3: of 4000 draws some lie below 2, no mean of 40 below 7."""
    random = np.random.default_rng(5)
    steps: list[esopt.Step] = []
    result = esopt.minimize(
        lambda x, *seed: 10.0 + 3.0 * random.standard_normal(),
        X0,
        strategy=esopt.GradientES(n=40, rule=esopt.SGD(1e-9)),
        seeded=seeded,
        noisy=not seeded,
        target=7.0,
        generations=100,
        callback=steps.append,
    )
    assert result.reason == {"generations": 100.0}
    assert result.best.value < 2.0
    assert min(step.info.gradient.value for step in steps) > 8.0


def test_the_target_of_a_noisy_run_is_one_of_the_estimate():
    steps: list[esopt.Step] = []
    settings = {"strategy": esopt.snes(sigma=0.3), "noisy": True, "target": 2.0, "seed": 1}
    result = esopt.minimize(noisy_sphere(0.5, 3), X0, callback=steps.append, **settings)

    assert result.reason == {"target": steps[-1].info.gradient.value}
    assert all(step.info.gradient.value > 2.0 for step in steps[:-1])
    assert steps[-1].info.gradient.value <= 2.0


def test_steps_are_counted_and_limit_the_run():
    def f(x: Array) -> esopt.Outcome:
        return esopt.Outcome(sphere(x), steps=3)

    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), steps=40)

    assert result.generations == 4  # 12 steps a generation: the fourth passes 40
    assert result.steps == 4 * 12 + 3
    assert result.reason == {"steps": 48.0}


def test_seconds():
    def f(x: Array) -> float:
        time.sleep(0.005)
        return sphere(x)

    begun = time.perf_counter()
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), seconds=0.1)

    assert set(result.reason) == {"seconds"}
    assert 0.1 <= result.seconds <= time.perf_counter() - begun < 2.0
    assert 2 <= result.generations <= 5


def test_the_final_evaluations_take_time_that_is_counted():
    def f(x: Array) -> float:
        time.sleep(0.01)
        return sphere(x)

    begun = time.perf_counter()
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=2), generations=1, noisy=True, final_evaluations=10)
    assert 0.12 <= result.seconds <= time.perf_counter() - begun


@pytest.mark.parametrize("budget", [{"steps": 40}, {"seconds": 0.02}])
def test_final_evaluations_after_time_or_steps_are_no_more_than_a_generation(budget: dict[str, Any]):
    def f(x: Array) -> esopt.Outcome:
        time.sleep(0.001)
        return esopt.Outcome(sphere(x), steps=3)

    counted = Counted(f)
    result = esopt.minimize(counted, X0, strategy=esopt.GradientES(n=4), noisy=True, **budget)

    assert set(result.reason) == set(budget)
    assert counted.calls == result.evaluations == 4 * result.generations + 4
    assert result.steps == 3 * counted.calls
    few = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), noisy=True, final_evaluations=2, **budget)
    assert few.evaluations == 4 * few.generations + 2


# What x means


def test_deterministic_x_is_the_best_point_evaluated():
    seen: list[tuple[float, Array]] = []

    def f(x: Array) -> float:
        seen.append((bumpy(x), x.copy()))
        return seen[-1][0]

    result = esopt.minimize(f, X0, evaluations=500, seed=2)
    value, x = min(seen, key=lambda pair: pair[0])

    assert result.value == result.best.value == value
    assert result.value_stderr == 0.0
    np.testing.assert_array_equal(result.x, x)
    np.testing.assert_array_equal(seen[-1][1], result.mean)


def test_the_final_mean_is_the_result_where_it_is_the_best():
    strategy = esopt.GradientES(n=4, sigma=1.0, rule=esopt.SGD(0.05))
    result = esopt.minimize(sphere, X0, strategy=strategy, evaluations=2_000)

    np.testing.assert_array_equal(result.x, result.mean)
    np.testing.assert_array_equal(result.best.x, result.mean)
    assert result.value == sphere(result.mean) < 0.1


def noisy_sphere(deviation: float, seed: int) -> Callable[[Array], float]:
    random = np.random.default_rng(seed)
    return lambda x: sphere(x) + deviation * random.standard_normal()


def test_noisy_x_is_the_mean_evaluated_again():
    result = esopt.minimize(noisy_sphere(2.0, 1), X0, noisy=True, evaluations=1_000, final_evaluations=400, seed=1)

    np.testing.assert_array_equal(result.x, result.mean)
    assert result.value_stderr == pytest.approx(2.0 / math.sqrt(400), rel=0.1)
    assert result.best.value < sphere(result.x) - 2.0  # the lucky draw stays apart
    assert abs(result.value - sphere(result.x)) < 4.0 * result.value_stderr
    assert f"{result.value_stderr:.3g}" in str(result)


def test_the_standard_error_of_a_noisy_value_is_right():
    """Over many runs the error of the value has mean zero and, in standard errors, variance one."""
    scores = []
    for seed in range(80):
        result = esopt.minimize(
            noisy_sphere(1.5, seed), X0, noisy=True, evaluations=100, final_evaluations=40, seed=seed
        )
        scores.append((result.value - sphere(result.x)) / result.value_stderr)

    assert abs(np.mean(scores)) < 3.5 / math.sqrt(80)
    assert 0.6 < np.var(scores) < 1.6


def seeded_sphere(x: Array, seed: int) -> float:
    assert type(seed) is int
    assert 0 <= seed < 2**32
    return sphere(x) + ((seed * 2654435761) % 2**32) / 2**32


def test_seeded_objectives_get_the_seeds_of_their_candidates():
    calls: list[int] = []

    def f(x: Array, seed: int) -> float:
        calls.append(seed)
        return seeded_sphere(x, seed)

    strategy = esopt.GradientES(n=6)
    result = esopt.minimize(f, X0, strategy=strategy, seeded=True, evaluations=60, final_evaluations=20, seed=3)
    es = esopt.Optimizer(strategy, X0, seed=3)

    assert len(calls) == result.evaluations == 56
    assert calls[:6] == es.seeds.tolist()
    assert calls[:36:2] == calls[1:36:2]
    assert len(set(calls[36:])) == 20  # the final ones are all different
    assert not set(calls[:36]) & set(calls[36:])
    np.testing.assert_array_equal(result.x, result.mean)
    assert result.value == pytest.approx(np.mean([seeded_sphere(result.x, s) for s in calls[36:]]), rel=1e-14)
    deviation = np.std([seeded_sphere(result.x, s) for s in calls[36:]], ddof=1)
    assert result.value_stderr == pytest.approx(deviation / math.sqrt(20), rel=1e-12)


def test_infinite_values_are_not_the_result():
    f = Counted(lambda x: -math.inf if f.calls % 5 == 0 else bumpy(x))
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=8), generations=10)

    assert bumpy(result.x) == result.value == result.best.value
    assert result.failures == {"infinite": 16}


def test_an_infinite_final_value_is_a_failure_where_values_are_averaged():
    f = Counted(lambda x: -math.inf if f.calls == 9 else bumpy(x))
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=8), generations=1, noisy=True, final_evaluations=3)

    assert result.failures == {"infinite": 1}
    assert result.value == pytest.approx(bumpy(result.mean), rel=1e-14)


def test_a_failing_final_value_is_nan_and_no_success():
    f = Counted(lambda x: sphere(x))
    strategy = esopt.GradientES(n=4)
    result = esopt.minimize(
        lambda x: math.nan if f.calls >= 12 else f(x), X0, strategy=strategy, generations=3, noisy=True
    )

    assert math.isnan(result.value)
    assert math.isnan(result.value_stderr)
    assert not result.success
    assert result.failures == {"nan": 30}


# Arguments


def test_an_objective_says_how_it_is_called():
    def f(x: Array, seed: int, a: float) -> float:
        assert x.shape == (5, 1)
        return seeded_sphere(x, seed) + a

    column = X0.reshape(5, 1)
    own = esopt.minimize(esopt.Objective(f, args=(2.0,), seeded=True), column, evaluations=90)
    assert outcome(own) == outcome(esopt.minimize(f, column, args=(2.0,), seeded=True, evaluations=90))
    own = esopt.minimize(esopt.Objective(bumpy, bumpy_grad), X0, evaluations=90)
    assert outcome(own) == outcome(esopt.minimize(bumpy, X0, grad=bumpy_grad, evaluations=90))


def test_args_follow_x_and_the_seed():
    def f(x: Array, a: float, b: str) -> float:
        assert (a, b) == (2.0, "b")
        return sphere(x)

    def g(x: Array, seed: int, a: float, b: str) -> float:
        assert type(seed) is int
        return f(x, a, b)

    assert esopt.minimize(f, X0, args=(2.0, "b"), evaluations=50).evaluations > 40
    assert esopt.minimize(g, X0, args=(2.0, "b"), seeded=True, evaluations=90).evaluations > 80


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 3), (2, 1, 2)])
def test_f_sees_the_shape_of_x0(shape: tuple[int, ...]):
    def f(x: Array) -> float:
        assert x.shape == shape
        assert x.dtype == np.float64
        return sphere(x)

    start = np.ones(shape)
    result = esopt.minimize(f, start, evaluations=200)

    assert result.x.shape == result.mean.shape == result.best.x.shape == shape
    flat = esopt.minimize(sphere, start.reshape(-1), evaluations=200)
    np.testing.assert_array_equal(result.x.reshape(-1), flat.x)


def test_a_scalar_start_and_integers():
    assert float(esopt.minimize(lambda x: (float(x) - 2.0) ** 2, 5, evaluations=500).x) == pytest.approx(2.0, abs=1e-6)
    whole = esopt.minimize(sphere, [1, 2, 3], evaluations=100)
    real = esopt.minimize(sphere, [1.0, 2.0, 3.0], evaluations=100)
    assert outcome(whole) == outcome(real)


def test_sigma_of_the_default_strategy():
    for sigma in (None, 1, [0.001, 1.0, 10.0, 1.0, 0.1]):
        found = esopt.minimize(sphere, X0, sigma=sigma, evaluations=300)
        own = esopt.minimize(sphere, X0, strategy=esopt.Portfolio(0.5 if sigma is None else sigma), evaluations=300)
        assert outcome(found) == outcome(own)


@pytest.mark.parametrize(
    ("dim", "settings", "expected"),
    [
        (1, {}, "Portfolio"),
        (640, {}, "Portfolio"),
        (641, {}, "Restarts"),
        (10_001, {}, "GradientES"),
        (5, {"noisy": True}, "CMAES"),
        (41, {"noisy": True}, "GradientES"),
        (5, {"grad": lambda x: 2.0 * x}, "GradientES"),
    ],
)
def test_the_result_says_what_was_picked(dim: int, settings: dict[str, Any], expected: str):
    result = esopt.minimize(lambda x: float(x @ x), np.ones(dim), generations=2, **settings)
    assert result.strategy == expected


def test_what_each_default_is_made_of():
    def default(dim: int, **changes: bool) -> Any:
        return default_strategy(0.3, dim, **{"gradients": False, "stochastic": False, **changes})

    assert (default(640).sigma, default(10_000).inner.sigma) == (0.3, 0.3)
    assert isinstance(default(10_000).inner, esopt.SepCMA)
    assert [type(default(dim, portfolio=False).inner) for dim in (5, 200, 201)] == [
        esopt.CMAES, esopt.CMAES, esopt.SepCMA,
    ]  # fmt: skip
    assert [default(dim, stochastic=True).n for dim in (1, 3, 40)] == [12, 12, 160]
    assert default(41, stochastic=True).natural
    assert isinstance(default(5, gradients=True).estimator, esopt.Bonnet)
    factor = default_strategy(np.eye(5), 5, gradients=False, stochastic=False)
    assert isinstance(factor.inner, esopt.CMAES)


def test_f_may_spoil_its_argument():
    def spoil(x: Array) -> float:
        value = sphere(x)
        x[:] = 77.0
        return value

    assert outcome(esopt.minimize(spoil, X0, evaluations=200)) == outcome(esopt.minimize(sphere, X0, evaluations=200))


@pytest.mark.parametrize(
    "wrap", [np.float32, lambda v: np.array(v), lambda v: np.array([v]), lambda v: esopt.Outcome(v)]
)
def test_what_counts_as_a_number(wrap: Callable[[float], Any]):
    result = esopt.minimize(lambda x: wrap(sphere(x)), X0, evaluations=100)

    assert result.value == pytest.approx(sphere(result.x), rel=1e-6)


@numba.njit
def compiled_bumpy(x):
    total = 0.0
    for i in range(x.size):
        total += (1.0 + i) * (x[i] - 0.5) * (x[i] - 0.5)
    return total


def test_which_evaluator_runs():
    def rows(x: Array) -> Array:
        return (x * x).sum(axis=1)

    assert esopt.minimize(sphere, X0, evaluations=50).evaluator == "Serial"
    assert esopt.minimize(rows, X0, vectorized=True, evaluations=50).evaluator == "Vectorized"
    assert esopt.minimize(compiled_bumpy, X0, evaluations=50).evaluator == "Compiled"
    own = esopt.Serial(esopt.Objective(compiled_bumpy))
    assert esopt.minimize(None, X0, evaluator=own, evaluations=50).evaluator == "Serial"


def test_a_compiled_function_with_a_python_gradient_runs_in_python():
    result = esopt.minimize(compiled_bumpy, X0, grad=lambda x: 2.0 * np.arange(1.0, 6.0) * (x - 0.5), evaluations=50)

    assert result.evaluator == "Serial"


def test_the_evaluators_agree_to_the_bit():
    python = esopt.minimize(compiled_bumpy.py_func, X0, evaluations=300, seed=1)
    compiled = esopt.minimize(compiled_bumpy, X0, evaluations=300, seed=1)
    rows = esopt.minimize(
        lambda x: np.array([compiled_bumpy.py_func(row) for row in x]), X0, vectorized=True, evaluations=300, seed=1
    )

    assert outcome(compiled) == outcome(python)
    assert outcome(rows) == outcome(python)


def test_f_is_not_probed():
    """The first call is candidate 0 of generation 0, whichever evaluator is chosen."""
    seen: list[Array] = []
    strategy = esopt.GradientES(n=4)
    first = esopt.Optimizer(strategy, X0, seed=6).ask()
    esopt.minimize(lambda x: seen.append(x.copy()) or 0.0, X0, strategy=strategy, seed=6, generations=1)
    np.testing.assert_array_equal(seen[:4], first)
    assert len(seen) == 5

    seen.clear()
    esopt.minimize(
        lambda x: seen.append(x.copy()) or np.zeros(len(x)),
        X0,
        strategy=strategy,
        seed=6,
        generations=1,
        vectorized=True,
    )
    np.testing.assert_array_equal(seen[0], first)
    assert [len(rows) for rows in seen] == [4, 1]


def test_an_evaluator_of_ones_own_brings_its_objective():
    result = esopt.minimize(
        None, X0, evaluator=esopt.Serial(esopt.Objective(seeded_sphere, seeded=True)), evaluations=90
    )
    np.testing.assert_array_equal(result.x, result.mean)
    assert result.value_stderr > 0.0

    objective = esopt.Objective(bumpy, grad=bumpy_grad)
    result = esopt.minimize(None, X0, evaluator=esopt.Serial(objective), evaluations=90)
    assert result.gradients == result.evaluations - 1


class Closing:
    """An evaluator that remembers whether it was closed."""

    def __init__(self, f: Callable[[Array], float]):
        self.inner, self.closed = esopt.Serial(f), False

    def init(self):
        return self.inner.init()

    def evaluate(self, population, state):
        return self.inner.evaluate(population, state)

    def close(self):
        self.closed = True


@pytest.mark.parametrize("action", [lambda: None, interrupt, lambda: 1 / 0])
def test_the_evaluator_is_closed_however_the_run_ends(action: Callable[[], Any]):
    evaluator = Closing(Counted(at=20, action=action))
    try:
        result = esopt.minimize(None, X0, evaluator=evaluator, evaluations=50)
        assert result.evaluator == "Closing"
    except esopt.EvaluationError:
        pass

    assert evaluator.closed


# Gradients


def test_gradients_find_the_minimum_of_a_quadratic():
    result = esopt.minimize(sphere, X0, grad=lambda x: 2.0 * x, evaluations=4_000)

    assert result.value < 1e-10
    assert result.gradients == result.evaluations - 1
    assert f"(and {result.gradients} gradients)" in str(result)


def test_gradients_get_down_rosenbrocks_valley():
    start = np.array([-0.5, 0.5, 0.5])
    result = esopt.minimize(rosenbrock, start, grad=rosenbrock_grad, evaluations=10_000)

    assert result.value < 0.05
    assert rosenbrock(start) > 10.0


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_gradients_have_the_shape_of_x(shape: tuple[int, ...]):
    def grad(x: Array) -> Array:
        assert x.shape == shape
        return 2.0 * x

    assert esopt.minimize(sphere, np.ones(shape), grad=grad, evaluations=4_000).value < 1e-6


def test_the_gradient_is_called_once_per_candidate_and_not_at_the_final_mean():
    f, grad = Counted(), Counted(lambda x: 2.0 * x)
    result = esopt.minimize(f, X0, grad=grad, evaluations=21)

    assert (f.calls, grad.calls) == (result.evaluations, result.gradients) == (21, 20)


# Callbacks and interrupts


def test_callbacks_see_each_generation():
    steps: list[esopt.Step] = []
    f = Counted(lambda x: math.nan if x[0] < -1.2 else sphere(x))
    strategy = esopt.GradientES(n=24, sigma=0.2, sampler=esopt.Antithetic())
    result = esopt.minimize(f, X0, strategy=strategy, generations=5, callback=steps.append, seed=1)
    es = esopt.Optimizer(strategy, X0, seed=1)

    assert [step.generation for step in steps] == [1, 2, 3, 4, 5]
    assert [step.evaluations for step in steps] == [24, 48, 72, 96, 120]
    for step in steps:
        values = np.array([math.nan if x[0] < -1.2 else sphere(x) for x in es.ask()])
        es.tell(values)
        np.testing.assert_array_equal(step.values, values)
        np.testing.assert_array_equal(step.mean, es.mean)
        assert step.value == pytest.approx(np.nanmean(values), rel=1e-14)
        assert step.best_value == es.result.value
        assert dict(step.failures) == ({"nan": int(np.isnan(values).sum())} if np.isnan(values).any() else {})
        assert step.info.generation == step.generation - 1
        assert step.info.gradient.mean.shape == (5,)
        assert step.info.gradient.snr >= 0.0
        assert 0.0 < step.seconds <= result.seconds
    assert sum(step.failures.get("nan", 0) for step in steps) == result.failures["nan"] > 0


def test_a_callback_stops_the_run():
    def callback(step: esopt.Step) -> None:
        if step.generation == 3:
            raise StopIteration

    f = Counted()
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), callback=callback)

    assert result.reason == {"callback": 3.0}
    assert (result.generations, result.evaluations, f.calls) == (3, 13, 13)
    assert "the callback stopped the run" in result.message


def test_a_callbacks_own_error_is_its_own():
    def callback(step: esopt.Step) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        esopt.minimize(sphere, X0, callback=callback)


def test_stop_iteration_from_f_does_not_stop_the_run_quietly():
    with pytest.raises(esopt.EvaluationError, match="candidate 2 of generation 1 raised StopIteration"):
        esopt.minimize(Counted(at=7, action=lambda: next(iter(()))), X0, strategy=esopt.GradientES(n=4))


@pytest.mark.parametrize("at", [1, 4, 5, 8, 9, 30])
def test_ctrl_c_returns_the_result_so_far(at: int):
    f = Counted(bumpy, at=at, action=interrupt)
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), generations=50, seed=1)
    told = (at - 1) // 4
    twin = run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=1), bumpy, told)

    assert result.reason == {"interrupted": float(told)}
    assert result.message == f"the run was interrupted (interrupted={told})"
    assert (result.generations, result.evaluations) == (told, 4 * told)
    assert result.value == twin.result.value
    np.testing.assert_array_equal(result.x, twin.result.x)
    np.testing.assert_array_equal(result.mean, twin.mean)


def test_ctrl_c_during_the_final_evaluation_loses_nothing():
    f = Counted(bumpy, at=13, action=interrupt)
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), generations=3, seed=1)

    assert result.reason == {"generations": 3.0, "interrupted": 3.0}
    assert result.evaluations == 12
    assert result.value == run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=1), bumpy, 3).result.value


@pytest.mark.parametrize("at", [2, 10, 13])
def test_ctrl_c_in_a_noisy_run_returns_the_mean_and_not_the_lucky_draw(at: int):
    f = Counted(noisy_sphere(1.0, 2), at=at, action=interrupt)
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), generations=3, noisy=True)

    np.testing.assert_array_equal(result.x, result.mean)
    if at == 2:
        assert math.isnan(result.value)
    else:
        assert result.value > result.best.value
        assert result.value_stderr > 0.0


def test_ctrl_c_in_a_callback():
    result = esopt.minimize(sphere, X0, strategy=esopt.GradientES(n=4), callback=lambda step: interrupt())

    assert result.reason == {"interrupted": 1.0}


def test_divergence_ends_the_run_with_the_best_point():
    strategy = esopt.GradientES(n=4, rule=esopt.SGD(1e306))
    with pytest.warns(RuntimeWarning, match="overflow"):
        result = esopt.minimize(lambda x: 1e9 * float(x.sum()), X0, strategy=strategy)

    assert set(result.reason) == {"diverged"}
    assert not result.success
    assert np.isfinite(result.x).all()


# f that fails


class Fails(Exception):
    pass


def fails(x: Array) -> float:
    if x[0] < -1.1:
        raise Fails(f"at {x[0]!r}")
    return sphere(x)


def test_the_error_reproduces_the_candidate():
    strategy = esopt.GradientES(n=6, sigma=0.05)
    with pytest.raises(esopt.EvaluationError, match="raised Fails: at ") as caught:
        esopt.minimize(fails, X0, strategy=strategy, seed=8)
    row, generation = map(int, re.match(r"candidate (\d+) of generation (\d+)", str(caught.value)).groups())
    es = run(esopt.Optimizer(strategy, X0, seed=8), fails, generation)

    assert isinstance(caught.value.__cause__, Fails)
    np.testing.assert_array_equal(caught.value.x, es.population()[row])
    with pytest.raises(Fails) as again:
        fails(es.population()[row])
    assert str(again.value) in str(caught.value)


def test_the_checkpoint_of_a_run_that_failed_reproduces_the_candidate(tmp_path: Path):
    path = tmp_path / "run.npz"
    strategy = esopt.GradientES(n=6, sigma=0.05)
    with pytest.raises(esopt.EvaluationError) as caught:
        esopt.minimize(fails, X0, strategy=strategy, seed=8, checkpoint=path)
    row, generation = map(int, re.match(r"candidate (\d+) of generation (\d+)", str(caught.value)).groups())
    es = esopt.Optimizer(strategy, X0, seed=8)
    es.load(path)

    assert es.generation == generation > 0
    with pytest.raises(Fails):
        fails(es.population()[row])


@pytest.mark.parametrize("kind", ["values", "noisy", "seeded"])
def test_an_exception_at_the_final_mean_costs_nothing_but_its_evaluation(kind: str):
    f = Counted(lambda x, *seed: bumpy(x), at=15 if kind != "values" else 13, action=lambda: 1 / 0)
    result = esopt.minimize(
        f, X0, strategy=esopt.GradientES(n=4), seeded=kind == "seeded", noisy=kind == "noisy", generations=3
    )
    twin = run(esopt.Optimizer(esopt.GradientES(n=4), X0), bumpy, 3)

    assert result.reason == {"generations": 3.0}
    assert result.failures == {"exception": 1}
    assert result.evaluations == 12
    assert result.success
    if kind == "values":
        assert result.value == twin.result.value
        np.testing.assert_array_equal(result.x, twin.result.x)
    else:
        assert (result.value, result.value_stderr) == (twin.progress.value, twin.progress.value_stderr)
        np.testing.assert_array_equal(result.x, twin.mean)


@pytest.mark.parametrize("noisy", [False, True])
def test_an_exception_brings_the_result_so_far(noisy: bool):
    f = Counted(bumpy, at=14, action=lambda: 1 / 0)
    with pytest.raises(esopt.EvaluationError, match="candidate 1 of generation 3") as caught:
        esopt.minimize(f, X0, strategy=esopt.GradientES(n=4), noisy=noisy)
    result = caught.value.result
    twin = run(esopt.Optimizer(esopt.GradientES(n=4), X0), bumpy, 3)

    assert result.reason == {"exception": 3.0}
    assert not result.success
    assert (result.generations, result.evaluations, result.evaluator) == (3, 12, "Serial")
    assert result.best.value == twin.result.value
    assert result.value == (twin.progress.value if noisy else twin.result.value)
    np.testing.assert_array_equal(result.x, twin.mean if noisy else twin.result.x)
    assert esopt.EvaluationError.result is None


@pytest.mark.parametrize("noisy", [False, True])
def test_a_generation_without_any_value_ends_the_run_with_what_it_has(noisy: bool):
    """The minimum is at the edge of where f has values; in the end everything asked for lies beyond."""
    found: list[float] = []
    f = Counted(lambda x: found.append(math.nan if x[0] < 0.0 else sphere(x)) or found[-1])
    strategy = esopt.GradientES(sigma=0.02, rule=esopt.Adam(0.1))
    result = esopt.minimize(f, np.full(3, 0.5), strategy=strategy, noisy=noisy, final_evaluations=5)

    assert set(result.reason) == {"failed"}
    assert result.reason["failed"] == result.generations > 3
    assert "a whole generation failed" in result.message
    assert not result.success
    assert result.best.value < 0.5
    assert f.calls == result.evaluations  # the lost generation and the final ones are counted
    assert result.failures == {"nan": sum(map(math.isnan, found))}
    if not noisy:
        assert result.value == result.best.value == sphere(result.x)


def test_failures_may_be_counted_instead():
    result = esopt.minimize(fails, X0, strategy=esopt.GradientES(n=24, sigma=0.2), on_error="nan", evaluations=600)

    assert set(result.failures) == {"exception"}
    assert 1 < result.failures["exception"] < 600
    assert result.value < sphere(X0)
    assert "failures: exception: " in str(result)


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_a_generation_without_any_value_is_an_error(on_error: str):
    def f(x: Array) -> float:
        return math.nan

    with pytest.raises(
        esopt.EvaluationError, match=r"no usable block|all \d+ (values|evaluations)|no usable candidate"
    ):
        esopt.minimize(f, X0, on_error=on_error)


@pytest.mark.parametrize(
    "returned",
    [None, "1.0", 1j, np.zeros(2), np.zeros((1, 3)), [1.0, 2.0], {}, object(), np.array(None)],
    ids=["None", "str", "complex", "vector", "matrix", "list", "dict", "object", "object array"],
)
@pytest.mark.parametrize(
    ("on_error", "what"),
    [("raise", ".* for candidate 0 of generation 0"), ("nan", "no number for any of the .* of the first generation")],
    ids=["raise", "nan"],
)
def test_f_must_return_a_number(returned: Any, on_error: str, what: str):
    """A wrong type everywhere is a mistake in the program, and no failure to be counted."""
    with pytest.raises(TypeError, match=rf"f returned {what}.*Expected a number"):
        esopt.minimize(lambda x: returned, X0, on_error=on_error)


@pytest.mark.parametrize("returned", [None, np.zeros(4), np.zeros((5, 1)), 1.0, np.zeros(5) * 1j, [None] * 5])
def test_grad_must_return_a_gradient(returned: Any):
    with pytest.raises(TypeError, match=r"grad returned .* for candidate 0 of generation 0.*shape \(5,\)"):
        esopt.minimize(sphere, X0, grad=lambda x: returned)


# Checkpoints; kills and signals are in regression/test_resume.py


def test_a_finished_run_is_not_run_again(tmp_path: Path):
    path = tmp_path / "run.npz"
    first = esopt.minimize(Counted(bumpy), X0, evaluations=200, checkpoint=path, seed=3)
    written = path.read_bytes()
    f = Counted(bumpy)
    second = esopt.minimize(f, X0, evaluations=200, checkpoint=path, seed=3)

    assert outcome(second) == outcome(first)
    assert f.calls == 1  # the final mean
    assert path.read_bytes() == written


def test_a_larger_budget_extends_the_run(tmp_path: Path):
    path = tmp_path / "run.npz"
    esopt.minimize(Counted(bumpy), X0, evaluations=200, checkpoint=path, seed=3)
    f = Counted(bumpy)
    longer = esopt.minimize(f, X0, evaluations=500, checkpoint=path, seed=3)

    assert outcome(longer) == outcome(esopt.minimize(bumpy, X0, evaluations=500, seed=3))
    assert f.calls < 320


@pytest.mark.parametrize("at", [3, 9, 50, 99])
@pytest.mark.parametrize("seconds", [0, 60.0])
def test_an_interrupted_run_goes_on_to_the_same_bits(at: int, seconds: float, tmp_path: Path):
    path = tmp_path / "run.npz"
    settings: dict[str, Any] = {"strategy": esopt.GradientES(n=4), "evaluations": 120, "seed": 3}
    straight = esopt.minimize(bumpy, X0, **settings)
    broken = Counted(bumpy, at=at, action=interrupt)
    partly = esopt.minimize(broken, X0, checkpoint=path, checkpoint_seconds=seconds, **settings)
    rest = Counted(bumpy)
    resumed = esopt.minimize(rest, X0, checkpoint=path, checkpoint_seconds=seconds, **settings)

    assert partly.reason == {"interrupted": float((at - 1) // 4)}
    assert outcome(resumed) == outcome(straight)
    assert rest.calls == straight.evaluations - (at - 1) // 4 * 4
    assert resumed.seconds > partly.seconds


def test_a_failed_run_goes_on_once_f_is_mended(tmp_path: Path):
    path = tmp_path / "run.npz"
    settings: dict[str, Any] = {"strategy": esopt.GradientES(n=4), "evaluations": 120, "seed": 3, "checkpoint": path}
    with pytest.raises(esopt.EvaluationError, match="ZeroDivisionError"):
        esopt.minimize(Counted(bumpy, at=50, action=lambda: 1 / 0), X0, **settings)
    rest = Counted(bumpy)
    resumed = esopt.minimize(rest, X0, **settings)

    assert rest.calls == resumed.evaluations - 48
    del settings["checkpoint"]
    assert outcome(resumed) == outcome(esopt.minimize(bumpy, X0, **settings))


def test_nothing_is_written_before_anything_was_learned(tmp_path: Path):
    """So that a first generation that fails does not pin down the settings."""
    path = tmp_path / "run.npz"
    with pytest.raises(esopt.EvaluationError):
        esopt.minimize(Counted(at=2, action=lambda: 1 / 0), X0, checkpoint=path, sigma=0.5)

    assert not path.exists()
    assert esopt.minimize(sphere, X0, checkpoint=path, sigma=0.1, evaluations=100).success


def test_a_callback_that_stops_leaves_a_checkpoint_that_goes_on(tmp_path: Path):
    path = tmp_path / "run.npz"

    def callback(step: esopt.Step) -> None:
        if step.generation == 5:
            raise StopIteration

    esopt.minimize(bumpy, X0, evaluations=200, checkpoint=path, callback=callback)
    assert outcome(esopt.minimize(bumpy, X0, evaluations=200, checkpoint=path)) == outcome(
        esopt.minimize(bumpy, X0, evaluations=200)
    )


def test_evaluators_may_change_between_parts_of_a_run(tmp_path: Path):
    path = tmp_path / "run.npz"
    straight = esopt.minimize(compiled_bumpy.py_func, X0, evaluations=300)
    esopt.minimize(compiled_bumpy, X0, evaluations=100, checkpoint=path)
    other = esopt.Serial(esopt.Objective(compiled_bumpy))
    esopt.minimize(None, X0, evaluator=other, evaluations=200, checkpoint=path)
    resumed = esopt.minimize(compiled_bumpy.py_func, X0, evaluations=300, checkpoint=path)

    assert outcome(resumed) == outcome(straight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"f": bumpy}, r"objective\.f: tests\.reference\.runs\.sphere in the file, tests\.reference\.runs\.bumpy here"),
        (
            {"f": lambda x, a: 0.0, "args": (2.0,)},
            r"objective\.f: .*<lambda> here\n  objective\.args: \[\] in the file",
        ),
        ({"seeded": True}, r"objective\.seeded: False in the file, True here"),
    ],
)
def test_a_checkpoint_of_another_objective_is_refused(changes: dict[str, Any], message: str, tmp_path: Path):
    path = tmp_path / "run.npz"
    settings: dict[str, Any] = {"f": sphere, "x0": X0, "strategy": esopt.snes(), "checkpoint": path}
    esopt.minimize(**settings, generations=3)
    written = path.read_bytes()

    with pytest.raises(esopt.CheckpointError, match=message):
        esopt.minimize(**{**settings, **changes, "generations": 5})
    assert path.read_bytes() == written
    es = esopt.Optimizer(esopt.snes(), X0)
    es.load(path)
    assert es.generation == 3


def test_a_finished_noisy_run_keeps_its_target_and_its_estimate(tmp_path: Path):
    settings: dict[str, Any] = {"noisy": True, "target": 1.0, "checkpoint": tmp_path / "run.npz"}
    first = esopt.minimize(noisy_sphere(0.1, 1), X0, **settings)
    assert set(first.reason) == {"target"}
    again = esopt.minimize(noisy_sphere(0.1, 2), X0, **settings)
    assert (again.reason, again.generations) == (first.reason, first.generations)


def test_saving_follows_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saves = []
    monkeypatch.setattr(esopt.Optimizer, "save", lambda es, path: saves.append(es.generation))
    settings: dict[str, Any] = {"strategy": esopt.GradientES(n=4), "generations": 5, "checkpoint": tmp_path / "run.npz"}
    esopt.minimize(sphere, X0, checkpoint_seconds=0, **settings)
    assert saves == [1, 2, 3, 4, 5]
    saves.clear()
    esopt.minimize(sphere, X0, checkpoint_seconds=60.0, **settings)
    assert saves == [5]


@pytest.mark.parametrize(
    "strategy",
    [None, esopt.CMAES(), esopt.snes(), esopt.QuasiNewton()],
    ids=["default", "CMAES", "snes", "QuasiNewton"],
)
def test_minus_infinity_is_found_without_a_warning(strategy: Any):
    def falls(x: Array) -> float:
        return -math.inf if x[0] < 0.0 else float(x @ x)

    result = esopt.minimize(falls, [0.3, 2.0], strategy=strategy, evaluations=400)  # warnings are errors
    assert result.value == -math.inf
    assert result.x[0] < 0.0
    if not isinstance(strategy, esopt.QuasiNewton):
        assert esopt.minimize(lambda x: -math.inf, [1.0, 2.0], strategy=strategy, evaluations=200).value == -math.inf


def test_a_final_mean_of_minus_infinity_is_the_result():
    def pit(x: Array) -> float:
        return -math.inf if abs(x[0] - 1.0) < 1e-9 else float(x @ x)

    strategy = esopt.openai_es(sigma=0.5, n=2, lr=1e-12)  # x0 is the one point that it never draws
    result = esopt.minimize(pit, [1.0, 0.0], strategy=strategy, evaluations=3)
    assert (result.value, result.failures) == (-math.inf, {})
    assert result.x == pytest.approx([1.0, 0.0])

    f = Counted(lambda x: -math.inf if f.calls in (3, 9) else bumpy(x))
    result = esopt.minimize(f, X0, strategy=esopt.GradientES(n=8), generations=1)
    assert result.failures == {"infinite": 2}  # the strategy counts them as failures
    assert bumpy(result.x) == result.value
