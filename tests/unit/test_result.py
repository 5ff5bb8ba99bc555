"""Result: a record, a table, and what scipy's users expect."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

from esopt.result import Point, Result


def make(**changes) -> Result:
    fields = {
        "x": np.array([1.0, -2.0]),
        "value": 0.5,
        "value_stderr": 0.0,
        "mean": np.array([1.5, -2.5]),
        "best": Point(np.array([1.0, -2.0]), 0.5),
        "reason": {"evaluations": 996.0},
        "evaluations": 997,
        "gradients": 0,
        "generations": 166,
        "steps": 0,
        "seconds": 1.25,
        "failures": {},
        "evaluator": "Serial",
        "strategy": "GradientES",
    }
    return Result(**{**fields, **changes})


def test_scipy_reads_it():
    result = make(gradients=40)
    there = OptimizeResult(**dict(result))

    assert set(dict(result)) == {"x", "fun", "success", "status", "message", "nfev", "njev", "nit"}
    assert (there.fun, there.nfev, there.njev, there.nit) == (0.5, 997, 40, 166)
    assert there.success is True
    assert there.status == 0
    np.testing.assert_array_equal(there.x, [1.0, -2.0])
    assert there.message == result.message
    assert (result.fun, result.nfev, result.njev, result.nit) == (0.5, 997, 40, 166)


def test_it_reads_like_scipys_dictionary():
    result = make()
    there = OptimizeResult(**result)

    assert list(result) == list(result.keys()) == list(there)
    assert len(result) == len(there) == 8
    assert "x" in result
    assert [name in result for name in ("seconds", 0, None)] == [False] * 3
    assert result.get("fun") == 0.5
    assert result.get("seconds") is None
    assert result.get("seconds", 3.0) == 3.0
    assert [name for name, _ in result.items()] == list(result)
    assert all(value is result[name] for name, value in result.items() if name == "x")
    assert list(result.values())[1:] == [result[name] for name in result][1:]


def test_only_scipys_keys_are_keys():
    with pytest.raises(KeyError, match="seconds"):
        make()["seconds"]


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ({}, "The run has not stopped yet."),
        ({"target": 0.5}, "the target value was reached (target=0.5)"),
        ({"evaluations": 20000.0}, "the budget of evaluations is used up (evaluations=20000)"),
        ({"generations": 12.0}, "the budget of generations is used up (generations=12)"),
        ({"steps": 1e6}, "the budget of steps is used up (steps=1000000)"),
        ({"seconds": 1.5}, "the time is up (seconds=1.5)"),
        ({"callback": 3.0}, "the callback stopped the run (callback=3)"),
        ({"failed": 3.0}, "a whole generation failed (failed=3)"),
        ({"exception": 3.0}, "an exception ended the run (exception=3)"),
        ({"interrupted": 3.0}, "the run was interrupted (interrupted=3)"),
        ({"tolerance": 1e-9}, "tolerance (tolerance=1e-09)"),
        ({"steps": 5.0, "seconds": 2.0}, "the budget of steps is used up (steps=5); the time is up (seconds=2)"),
    ],
)
def test_message(reason: dict[str, float], sentence: str):
    assert make(reason=reason).message == sentence


def test_success():
    assert make().success
    assert not make(value=math.nan).success
    assert not make(value=math.inf).success
    assert not make(reason={"failed": 2.0}).success
    assert not make(reason={"exception": 2.0}).success
    diverged = make(reason={"diverged": 2.0})
    assert not diverged.success
    assert diverged.status == 1
    assert "use a smaller learning rate" in diverged.message


def test_table():
    lines = str(make()).splitlines()

    assert lines == [
        "       value: 0.5",
        "           x: [ 1. -2.]",
        "      reason: the budget of evaluations is used up (evaluations=996)",
        " evaluations: 997",
        " generations: 166",
        "     seconds: 1.25",
        "    strategy: GradientES",
        "   evaluator: Serial",
    ]


def test_table_shows_what_there_is():
    text = str(make(value_stderr=0.0123, gradients=40, steps=77, failures={"nan": 2, "exception": 1}))

    assert "       value: 0.5 +- 0.0123\n" in text
    assert " evaluations: 997 (and 40 gradients)\n" in text
    assert "       steps: 77\n" in text
    assert "    failures: nan: 2, exception: 1\n" in text


def test_table_of_a_large_x_stays_a_table():
    lines = str(make(x=np.arange(12.0).reshape(3, 4))).splitlines()

    assert max(map(len, lines)) <= 100
    assert all(line[12:14] == ": " or line[:14] == " " * 14 for line in lines)
    assert len(str(make(x=np.zeros(10**6)))) < 1000
