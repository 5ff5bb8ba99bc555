"""The failure policy of every evaluator: retries, limits, the log; and timeouts where f is called in this process."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest

import esopt
from esopt import (
    Compiled,
    EvaluationError,
    Executor,
    Gaussian,
    Joblib,
    Key,
    Objective,
    Population,
    Serial,
    Vectorized,
    minimize,
)

EDGE = 0.5
POOL = ThreadPoolExecutor(2)


def population(n: int = 40, generation: int = 3) -> Population:
    return Population(np.zeros(3), 1.0, Gaussian().noise(Key(9, generation), n, 3))


class Flaky:
    """f(x, seed) raises at the first ``times`` calls of a candidate with x_0 > EDGE, then returns its sum."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls: dict[bytes, int] = {}
        self.seeds: dict[bytes, set[int]] = {}

    def __call__(self, x: Any, seed: int) -> float:
        key = x.tobytes()
        self.calls[key] = self.calls.get(key, 0) + 1
        self.seeds.setdefault(key, set()).add(seed)
        if x[0] > EDGE and self.calls[key] <= self.times:
            raise ArithmeticError("not today")
        return float(x.sum())


MAKERS: dict[str, Callable[..., Any]] = {
    "Serial": Serial,
    "threads": lambda objective, **settings: Joblib(objective, 2, "threading", **settings),
    "one worker": lambda objective, **settings: Joblib(objective, 1, **settings),
    "Executor": lambda objective, **settings: Executor(objective, POOL, **settings),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every
@pytest.mark.parametrize("retries", [1, 3])
def test_retries_evaluate_the_same_candidate_with_the_same_seed_up_to_k_times(make: Any, retries: int) -> None:
    made = population()
    bad = np.asarray(made)[:, 0] > EDGE
    for times in (retries, retries + 1):
        f = Flaky(times)
        evaluator = make(Objective(f, seeded=True), on_error=f"retry({retries})")
        evals = evaluator.evaluate(made, ())[0]
        evaluator.close()
        expected = np.array([x.sum() for x in np.asarray(made)])
        assert bad.sum() > 5
        lost = bad & (times > retries)
        np.testing.assert_array_equal(np.isnan(evals.values), lost)
        np.testing.assert_array_equal(evals.values[~lost], expected[~lost])
        counts = {"retried": retries * bad.sum(), "exception": lost.sum()}
        assert evals.failures == {kind: times for kind, times in counts.items() if times}
        assert sorted(set(f.calls.values())) == [1, retries + 1]
        assert all(len(seeds) == 1 for seeds in f.seeds.values())


def test_retries_of_a_call_for_many_rows() -> None:
    calls: list[int] = []

    def f(rows: Any) -> Any:
        calls.append(len(rows))
        if len(calls) in (1, 4, 5, 6):
            raise ArithmeticError
        return rows.sum(axis=1)

    made = population(12)
    evals = Vectorized(f, chunk=4, on_error="retry(2)").evaluate(made, ())[0]
    # One failure then success; success; three failures.
    assert calls == [4] * 6
    assert evals.failures == {"retried": 4 + 8, "exception": 4}
    np.testing.assert_array_equal(np.isnan(evals.values), np.arange(12) >= 8)


def test_retries_of_compiled_code_and_of_derivatives() -> None:
    @numba.njit
    def f(x):
        if x[0] > 0.5:
            raise ValueError("no")
        return x[0]

    made = population()
    bad = np.asarray(made)[:, 0] > EDGE
    evals = Compiled(f, on_error="retry(2)").evaluate(made, ())[0]
    assert evals.failures == {"retried": 2 * bad.sum(), "exception": bad.sum()}
    np.testing.assert_array_equal(np.isnan(evals.values), bad)

    calls: dict[bytes, int] = {}

    def grad(x: Any) -> Any:
        calls[x.tobytes()] = calls.get(x.tobytes(), 0) + 1
        if x[0] > EDGE and calls[x.tobytes()] == 1:
            raise ArithmeticError
        return x

    for make in (Serial, MAKERS["threads"]):
        calls.clear()
        evaluator = make(Objective(lambda x: 0.0, grad), on_error="retry(1)")
        evals = evaluator.evaluate(made.needing("grads"), ())[0]
        evaluator.close()
        assert evals.failures == {"retried": bad.sum()}
        np.testing.assert_array_equal(evals.grads, np.asarray(made))


@every
def test_max_failures_is_a_number_or_a_share_of_candidates(make: Any) -> None:
    made = population()
    failing = int((np.asarray(made)[:, 0] > EDGE).sum())

    def f(x: Any, seed: int) -> float:
        if x[0] > EDGE:
            raise ArithmeticError
        return float("nan") if x[0] < -1.5 else float(x[0])

    total = failing + int((np.asarray(made)[:, 0] < -1.5).sum())
    assert failing < total < len(made)
    for most in (total, total / len(made), 0.999, None):
        evaluator = make(Objective(f, seeded=True), on_error="nan", max_failures=most)
        assert np.isnan(evaluator.evaluate(made, ())[0].values).sum() == total
        evaluator.close()
    for most in (total - 1, (total - 1) / len(made), 0):
        evaluator = make(Objective(f, seeded=True), on_error="nan", max_failures=most)
        with pytest.raises(
            EvaluationError, match=rf"of 40 candidates of generation 3 failed (?s:.)*max_failures={most}"
        ):
            evaluator.evaluate(made, ())
        evaluator.close()


def test_max_failures_of_rows_and_of_compiled_code() -> None:
    made = population()

    def f(rows: Any) -> Any:
        return np.where(rows[:, 0] > EDGE, np.nan, rows[:, 0])

    failing = int((np.asarray(made)[:, 0] > EDGE).sum())
    one = numba.njit(lambda x: np.nan if x[0] > 0.5 else x[0])
    for make, function in ((Vectorized, f), (Compiled, one)):
        make(function, max_failures=failing).evaluate(made, ())
        with pytest.raises(EvaluationError, match=rf"{failing} of 40 candidates .* \({failing} nan\)"):
            make(function, max_failures=failing - 1).evaluate(made, ())


def test_a_generation_with_too_many_failures_leaves_the_optimizer_as_it_was() -> None:
    broken = False

    def f(x: Any) -> float:
        if broken and x[0] > 0.0:
            raise ArithmeticError
        return float(x @ x)

    es = esopt.Optimizer(esopt.CMAES(), [1.0, 2.0], 3)
    evaluator = Serial(f, "nan", max_failures=0.1)
    for _ in range(3):
        evals, _ = evaluator.evaluate(es.population(), ())
        es.learn(evals, ())
    mean, broken = es.mean.copy(), True
    with pytest.raises(EvaluationError):
        evaluator.evaluate(es.population(), ())
    np.testing.assert_array_equal(es.mean, mean)
    with pytest.raises(EvaluationError, match=r"max_failures=0.1") as caught:
        minimize(f, [1.0, 2.0], on_error="nan", max_failures=0.1, evaluations=500)
    assert caught.value.result.evaluations == 0


@every
def test_failures_are_logged_in_a_line_that_reproduces_them_and_not_more_than_five(make: Any, caplog: Any) -> None:
    made = population()

    def f(x: Any, seed: int) -> float:
        if x[0] > EDGE:
            raise ArithmeticError("too\nlarge")
        return float("nan") if x[0] < -EDGE else 0.0

    evaluator = make(Objective(f, seeded=True), on_error="nan")
    with caplog.at_level(logging.WARNING, "esopt"):
        evals = evaluator.evaluate(made, ())[0]
    evaluator.close()
    for kind in ("exception", "nan"):
        lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{kind}: ")]
        assert len(lines) == 6
        assert lines[5] == f"{kind}: {evals.failures[kind] - 5} more in generation 3"
        for line in lines[:5]:
            found = re.search(r"candidate (\d+) of generation 3 \(seed (\d+), run seed 9\): (.*)\. Reproduce", line)
            row, seed, what = int(found[1]), int(found[2]), found[3]
            assert what == ("ArithmeticError: too large" if kind == "exception" else "f returned nan")
            assert seed == made.seeds[row]
            call = re.search(r"Reproduce it with: (f\(.*\)), where population = es\.population\(\)", line)[1]
            if kind == "nan":
                assert np.isnan(eval(call, {"f": f, "population": made}))
            else:
                with pytest.raises(ArithmeticError):
                    eval(call, {"f": f, "population": made})
    assert all(record.name == "esopt" and record.levelno == logging.WARNING for record in caplog.records)


def test_a_failed_call_for_many_rows_is_one_line(caplog: Any) -> None:
    def f(rows: Any) -> Any:
        raise ArithmeticError("no")

    with caplog.at_level(logging.WARNING, "esopt"):
        Vectorized(f, chunk=6, on_error="nan").evaluate(population(12), ())
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" (")[0] for line in lines] == [
        "exception: candidates 0 to 5 of generation 3",
        "exception: candidates 6 to 11 of generation 3",
    ]


def test_nothing_is_logged_where_nothing_fails_and_nothing_is_printed(caplog: Any, capfd: Any) -> None:
    Serial(lambda x: 0.0, "retry(3)").evaluate(population(), ())
    assert not caplog.records
    Serial(lambda x: float("nan")).evaluate(population(), ())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("settings", [{}, {"vectorized": True}])
def test_minimize_refuses_a_timeout_without_workers(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"timeout=3 without workers=, .*Pass workers=1 or more"):
        minimize(lambda x: 0.0, [1.0], timeout=3, **settings)


def test_minimize_gives_the_policy_to_the_evaluator_and_refuses_it_beside_one() -> None:
    f = Flaky(1)
    result = minimize(lambda x: f(x, 0), [1.0, 2.0, 3.0], on_error="retry(1)", evaluations=300)
    assert set(result.failures) == {"retried"}
    for given in ({"on_error": "nan"}, {"max_failures": 3}, {"timeout": 2.0}):
        with pytest.raises(TypeError, match=rf"both evaluator and {next(iter(given))}"):
            minimize(None, [1.0], evaluator=Serial(lambda x: 0.0), **given)


def test_bad_timeouts_are_refused() -> None:
    for timeout in (0.0, -1, float("inf"), float("nan"), "1", True):
        with pytest.raises(ValueError, match="timeout must be seconds or None"):
            Joblib(lambda x: 0.0, 2, timeout=timeout)
    for make in (MAKERS["threads"], MAKERS["Executor"]):
        with pytest.raises(ValueError, match=r"in this process, where a call that hangs .*Use Joblib\(f, workers=2"):
            make(lambda x: 0.0, timeout=2.0)
