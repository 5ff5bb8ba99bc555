"""minimize(mode="async"): bits with one worker, replays, resumed runs, failures, budgets."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import esopt
from esopt.testing import VirtualWorkers, check_evaluator, heavy_tailed

START = np.linspace(-1.0, 2.0, 5)


def sphere(x: np.ndarray) -> float:
    return float((x * x).sum())


def some_fail(x: np.ndarray) -> float:
    return sphere(x) if int(1e6 * abs(x[0])) % 5 else math.nan


STRATEGIES = {
    "cmaes": esopt.CMAES(),
    "sep": esopt.SepCMA(),
    "snes": esopt.snes(),
    "openai": esopt.openai_es(n=12, sigma=0.1, lr=0.1),
    "ars": esopt.ars(n=12, sigma=0.1, lr=0.1),
    "pgpe": esopt.pgpe(n=12),
    "gradient": esopt.GradientES(rule=esopt.Adam(0.1)),
    "restarts": esopt.Restarts(esopt.CMAES(tolfun=1.0)),
    "default": None,
}


def virtual(f: Callable[..., Any] = sphere, workers: int = 4, seed: int = 0, **settings: Any) -> VirtualWorkers:
    return VirtualWorkers(f, workers, heavy_tailed(seed), **settings)


def fly(f: Callable[..., Any] = sphere, workers: int = 4, **options: Any) -> esopt.Result:
    options = {"evaluations": 250, "seed": 3, **options}
    return esopt.minimize(None, START, evaluator=virtual(f, workers), mode="async", **options)


def assert_same(a: esopt.Result, b: esopt.Result) -> None:
    for name in ("x", "value", "mean", "evaluations", "generations", "failures", "best"):
        np.testing.assert_equal(getattr(a, name), getattr(b, name), err_msg=name)


# One worker


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("f", [sphere, some_fail])
def test_one_worker_has_the_bits_of_the_synchronous_run(name, f):
    options: dict[str, Any] = {"strategy": STRATEGIES[name], "evaluations": 300, "seed": 3}
    if name == "default":
        options["strategy"] = esopt.Restarts(esopt.CMAES())
    sync = esopt.minimize(f, START, **options)
    if name == "default":
        del options["strategy"]
    for one in (VirtualWorkers(f, 1, heavy_tailed()), esopt.Serial(f)):
        found = esopt.minimize(None, START, evaluator=one, mode="async", **options)
        assert_same(found, sync)
        assert found.reason == sync.reason
        np.testing.assert_array_equal(found.arrivals["told"], found.arrivals["generation"])


def test_one_worker_has_them_with_a_seed_for_each_candidate_and_in_bounds():
    def noisy(x, seed):
        return sphere(x) + np.random.default_rng(seed).normal()

    for strategy in (esopt.CMAES(0.3), esopt.openai_es(n=12, sigma=0.1)):
        options: dict[str, Any] = {"evaluations": 300, "strategy": strategy, "bounds": (-2.0, 3.0)}
        assert_same(
            esopt.minimize(noisy, START, seeded=True, mode="async", **options),
            esopt.minimize(noisy, START, seeded=True, **options),
        )


# Several


def test_every_worker_is_busy_and_candidates_are_late():
    workers = virtual()
    found = esopt.minimize(
        None, START, evaluator=workers, strategy=esopt.CMAES(), mode="async", evaluations=802, seed=3
    )

    assert workers.busy / (4 * workers.now) > 0.9  # the last ones end alone
    late = found.arrivals["told"] - found.arrivals["generation"]
    assert late.min() == 0
    assert 3 <= late.max() <= 20
    assert 1.5 < 8 * (late > 0).mean() < 3.0  # three are in flight when a generation of eight is complete
    assert found.generations == 100
    assert found.evaluations == 801
    assert found.value < 1e-6


def test_rows_beyond_the_population_are_of_the_same_noise():
    found = fly(strategy=esopt.CMAES(), workers=16)

    assert found.arrivals["row"].max() >= 8
    one = found.arrivals[found.arrivals["generation"] == 0]
    assert len(np.unique(one["row"])) == len(one) == 23 == one["row"].max() + 1  # 16, and one for each of seven


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_generation_has_its_size_and_rows_are_told_once(name):
    found = fly(strategy=STRATEGIES[name])

    told = found.arrivals[found.arrivals["told"] >= 0]
    sizes = np.bincount(told["told"])
    assert len(sizes) == found.generations
    if name not in ("restarts", "default"):
        assert len(set(sizes.tolist())) == 1
    assert len(np.unique(found.arrivals[["generation", "row"]])) == len(found.arrivals)
    assert found.evaluations == len(found.arrivals) + 1
    assert found.value < 1.0


def test_pairs_are_told_together():
    found = fly(strategy=STRATEGIES["openai"])

    log = np.sort(found.arrivals, order=["generation", "row"])
    pairs = log.reshape(-1, 2)
    np.testing.assert_array_equal(pairs["row"][:, 0] + 1, pairs["row"][:, 1])
    np.testing.assert_array_equal(pairs["told"][:, 0], pairs["told"][:, 1])


def test_candidates_are_those_of_their_generation():
    seen: list[np.ndarray] = []

    def f(x):
        seen.append(x)
        return sphere(x)

    found = fly(f, strategy=esopt.CMAES(), evaluations=100)
    es = esopt.Optimizer(esopt.CMAES(), START, 3)
    first = es.population().resize(64).rows()
    for entry, x in zip(found.arrivals, seen, strict=False):
        if entry["generation"] == 0:
            np.testing.assert_array_equal(x, first[entry["row"]])


# Replays


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_is_replayed_bit_for_bit(name):
    found = fly(strategy=STRATEGIES[name])
    assert (found.arrivals["told"] != found.arrivals["generation"]).any()
    for evaluator in (esopt.Serial(sphere), virtual(workers=2, seed=9)):
        again = esopt.minimize(
            None, START, evaluator=evaluator, mode="async", arrivals=found.arrivals, strategy=STRATEGIES[name],
            evaluations=250, seed=3,
        )  # fmt: skip
        assert_same(again, found)
        np.testing.assert_array_equal(again.arrivals, found.arrivals)


@pytest.mark.parametrize("options", [
    {"bounds": (-2.0, 3.0)},
    {"bounds": esopt.Clip(-2.0, 3.0)},
    {"max_lag": 1, "strategy": esopt.snes()},
    {"max_lag": 0},
    {"target": 1e-2},
    {"noisy": True},
    {"generations": 7},
])  # fmt: skip
def test_replays_of_other_runs(options):
    found = fly(**{"strategy": esopt.CMAES(0.4), **options})
    again = esopt.minimize(
        None, START, evaluator=esopt.Serial(sphere), mode="async", arrivals=found.arrivals, seed=3,
        **{"strategy": esopt.CMAES(0.4), "evaluations": 250, **options},
    )  # fmt: skip
    assert_same(again, found)
    assert again.reason == found.reason


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_real_workers_are_replayed_by_none(backend):
    many = esopt.Joblib(sphere, workers=3, backend=backend)
    options: dict[str, Any] = {"strategy": esopt.CMAES(), "mode": "async", "evaluations": 100, "target": 0.5}
    found = esopt.minimize(None, START, evaluator=many, **options)

    assert set(found.reason) == {"target"}
    assert found.value <= 0.5
    assert_same(esopt.minimize(sphere, START, arrivals=found.arrivals, **options), found)


def test_virtual_workers_are_an_evaluator():
    check_evaluator(lambda f, on_error: VirtualWorkers(f, 3, heavy_tailed(), on_error))


def test_an_interrupted_run_is_replayed_to_its_end():
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        if calls == 155:
            raise KeyboardInterrupt
        return sphere(x)

    found = fly(f, strategy=esopt.CMAES())
    assert found.reason == {"interrupted": float(found.generations)}
    again = fly(strategy=esopt.CMAES(), arrivals=found.arrivals, final_evaluations=0)
    assert again.reason == {"arrivals": 154.0}
    np.testing.assert_array_equal(again.mean, found.mean)
    assert again.evaluations == found.evaluations + 1  # that of the mean


def test_a_log_of_another_run_is_refused():
    found = fly(strategy=esopt.CMAES())
    with pytest.raises(ValueError, match="log of another run"):
        fly(strategy=esopt.CMAES(n=20), arrivals=found.arrivals)
    with pytest.raises(TypeError, match=r"Pass result\.arrivals"):
        fly(arrivals=[1, 2])
    with pytest.raises(ValueError, match="Leave out checkpoint"):
        fly(arrivals=found.arrivals, checkpoint="run.npz")
    with pytest.raises(ValueError, match='mode="async"'):
        esopt.minimize(sphere, START, arrivals=found.arrivals)


# Resumed runs


@pytest.mark.parametrize("name", ["cmaes", "snes", "openai", "restarts"])
def test_a_killed_run_goes_on_with_what_was_in_flight(name, tmp_path):
    class Killed(Exception):
        pass

    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        if calls == 60:
            raise Killed
        return sphere(x)

    path = tmp_path / "run.npz"
    options: dict[str, Any] = {
        "strategy": STRATEGIES[name],
        "checkpoint": path,
        "checkpoint_seconds": 0.0,
        "evaluations": 120,
    }
    with pytest.raises(esopt.EvaluationError):
        fly(f, **options)
    calls = 60
    found = fly(f, **options)

    assert calls == 60 + len(found.arrivals) - 59 + 1  # no result was lost, and one is the mean's
    assert len(np.unique(found.arrivals[["generation", "row"]])) == len(found.arrivals)
    replayed = fly(strategy=STRATEGIES[name], arrivals=found.arrivals, evaluations=120)
    assert_same(replayed, found)
    before = path.stat().st_mtime_ns
    assert fly(f, **options).evaluations == found.evaluations  # a finished run stays as it is
    assert path.stat().st_mtime_ns == before


def test_a_synchronous_run_does_not_go_on_asynchronously(tmp_path):
    path = tmp_path / "run.npz"
    esopt.minimize(sphere, START, strategy=esopt.CMAES(), evaluations=100, checkpoint=path)
    with pytest.raises(esopt.CheckpointError, match="holds a run, expected an asynchronous run"):
        fly(strategy=esopt.CMAES(), seed=0, checkpoint=path)


# Failures


def test_failed_candidates_are_counted_and_replaced():
    found = fly(some_fail, strategy=esopt.CMAES(), evaluations=1000)

    assert found.value < 1e-2
    share = found.failures["nan"] / found.evaluations
    assert 0.1 < share < 0.3


def test_an_exception_ends_the_run_and_keeps_its_result():
    def f(x):
        if sphere(x) < 0.5:
            raise ZeroDivisionError
        return sphere(x)

    with pytest.raises(esopt.EvaluationError, match="ZeroDivisionError") as error:
        fly(f, strategy=esopt.CMAES())
    assert error.value.result.arrivals is not None
    assert error.value.result.evaluations == len(error.value.result.arrivals) > 8
    found = esopt.minimize(
        None, START, evaluator=virtual(f, on_error="nan"), mode="async", strategy=esopt.CMAES(), evaluations=400
    )
    assert found.failures["exception"] > 10


def test_a_generation_without_a_value_ends_the_run():
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return sphere(x) if calls < 100 else math.nan

    found = fly(f, strategy=esopt.CMAES())
    assert set(found.reason) == {"failed"}
    with pytest.raises(esopt.EvaluationError):
        fly(lambda x: math.nan, strategy=esopt.CMAES())


def test_too_many_failures_of_a_generation_end_the_run_as_in_the_synchronous_mode():
    for most in (3, 0.3):
        calls = 0

        def f(x):
            nonlocal calls
            calls += 1
            if 40 < calls <= 44:
                raise OSError("lost")
            return sphere(x)

        settings: dict[str, Any] = {"strategy": esopt.CMAES(n=8), "generations": 20, "on_error": "nan", "mode": "async"}
        with pytest.raises(esopt.EvaluationError, match="4 of 8 candidates of generation 5 failed") as error:
            esopt.minimize(f, START, max_failures=most, **settings)
        assert error.value.result.generations == 5
        calls = 0
        assert esopt.minimize(f, START, max_failures=4, **settings).failures == {"exception": 4}


@pytest.mark.parametrize("limit", [3, None])
def test_what_failed_is_evaluated_again_by_the_resumed_run(limit, tmp_path):
    """A generation with too many failures, or with nothing else; then what was wrong is mended."""
    broken = True

    def f(x):
        nonlocal calls
        calls += 1
        if broken and calls > 40:
            raise OSError("lost")
        return sphere(x)

    calls = 0
    settings: dict[str, Any] = {
        "strategy": esopt.CMAES(n=8),
        "evaluations": 160,
        "on_error": "nan",
        "mode": "async",
        "checkpoint": tmp_path / "run.npz",
        "max_failures": limit,
    }
    if limit is None:
        assert "failed" in esopt.minimize(f, START, **settings).reason
    else:
        with pytest.raises(esopt.EvaluationError):
            esopt.minimize(f, START, **settings)
    broken = False
    found = esopt.minimize(f, START, **settings)
    assert found.failures == {}
    del settings["checkpoint"]
    assert_same(found, esopt.minimize(sphere, START, **settings))
    assert_same(found, esopt.minimize(sphere, START, arrivals=found.arrivals, **settings))


def test_a_generation_that_has_landed_is_told_on_resuming(tmp_path, monkeypatch):
    """An interrupt between the last arrival and its tell; the budget leaves nothing else to wait for."""
    path = tmp_path / "run.npz"
    options: dict[str, Any] = {"strategy": esopt.CMAES(n=8), "evaluations": 25, "checkpoint": path}
    with monkeypatch.context() as patch:
        patch.setattr("esopt._flight.Airport.tell", _interrupt_third(esopt._flight.Airport.tell))
        assert "interrupted" in fly(**options).reason
    found = fly(**options)
    assert found.generations == 3
    assert found.evaluations - 1 == len(found.arrivals) == 24  # and the mean's


def _interrupt_third(tell):
    count = 0

    def told(airport):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return tell(airport)

    return told


def test_late_candidates_are_dropped_and_counted():
    found = fly(strategy=esopt.CMAES(), max_lag=1)

    lag = found.arrivals["told"] - found.arrivals["generation"]
    lost = found.arrivals["told"] < 0
    assert lag[~lost].max() == 1
    assert lost.any()
    assert found.failures == {"outdated": lost.sum()}
    assert found.evaluations == len(found.arrivals) + 1 <= 250


def test_a_restart_drops_what_belongs_to_the_run_before():
    found = fly(strategy=STRATEGIES["restarts"], evaluations=2000)

    assert found.failures["outdated"] == (found.arrivals["told"] < 0).sum() > 0
    assert found.failures["outdated"] < 100


# Budgets, callbacks, refusals


@pytest.mark.parametrize("budget", [9, 50, 401])
def test_budgets_hold(budget):
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return sphere(x)

    found = fly(f, strategy=esopt.CMAES(), evaluations=budget)
    assert calls == found.evaluations <= budget
    assert found.evaluations > budget - 8 - 1
    assert fly(f, strategy=esopt.CMAES(), evaluations=None, generations=5).generations == 5


def test_targets_callbacks_and_history():
    steps: list[esopt.Step] = []
    found = fly(strategy=esopt.CMAES(), target=1e-3, callback=steps.append, history=True)

    assert set(found.reason) == {"target"}
    assert found.value <= 1e-3
    assert len(steps) == found.generations == len(found.history)
    assert [step.generation for step in steps] == list(range(1, found.generations + 1))

    def stop(step):
        if step.generation == 4:
            raise StopIteration

    assert fly(strategy=esopt.CMAES(), callback=stop).generations == 4


@pytest.mark.parametrize("strategy", [esopt.MAES(), esopt.Portfolio(), esopt.CMAES(step_size=esopt.TPA()),
                                      esopt.GradientES(sizing=esopt.NormTest(most=64))])  # fmt: skip
def test_strategies_that_cannot_are_refused(strategy):
    with pytest.raises(TypeError, match=r"Use CMAES\(\) or SepCMA\(\)"):
        fly(strategy=strategy)


def test_modes_that_are_none_are_refused():
    with pytest.raises(ValueError, match='"sync" or "async"'):
        esopt.minimize(sphere, START, mode="turbo")
    for lag in (-1, 0.5, True):
        with pytest.raises(ValueError, match="max_lag"):
            esopt.minimize(sphere, START, mode="async", max_lag=lag)
    assert inspect.signature(esopt.minimize).parameters["mode"].default == "sync"
