"""30 % of the evaluations fail: strategies still solve their problems, and the gradient has no bias."""

from __future__ import annotations

import importlib.util
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt

ROOT = Path(__file__).parents[2]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("attack_failures", ROOT / "scripts" / "attack_failures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


attack = load()
QUICK = [("CMAES", "sphere"), ("snes", "sphere"), ("GradientES", "sphere"), ("CMAES", "rosenbrock")]


@pytest.mark.parametrize(("name", "problem"), QUICK)
def test_the_problem_is_solved_within_twice_the_evaluations(name: str, problem: str):
    alone = [attack.cost(name, problem, 0.0, seed)[0] for seed in range(3)]
    failing = [attack.cost(name, problem, 0.3, seed) for seed in range(3)]

    assert -1 not in alone
    assert -1 not in [evaluations for evaluations, _ in failing]
    assert np.median([evaluations for evaluations, _ in failing]) < 2.0 * np.median(alone)
    total = np.sum([counts for _, counts in failing], axis=0)
    share = total / np.sum([evaluations for evaluations, _ in failing])
    np.testing.assert_allclose(share, 0.075, rtol=0.25)  # each of the four ways did happen


COEFFICIENTS = np.linspace(-1.0, 2.0, 5)
SIGMA, GENERATIONS = 0.3, 800


def estimates(estimator: Any, fails: Any, n: int = 40) -> np.ndarray[Any, Any]:
    """Gradients at the same mean in many generations; ``fails(x)`` says which candidates are lost."""
    strategy = esopt.GradientES(sigma=SIGMA, n=n, estimator=estimator, shaping=esopt.Raw(), rule=esopt.SGD(1e-300))
    es = esopt.Optimizer(strategy, np.zeros(5), seed=11)
    found = []
    for _ in range(GENERATIONS):
        rows = es.ask()
        values = np.exp(rows @ COEFFICIENTS)
        values[[fails(x) for x in rows]] = np.nan
        found.append(es.tell(values).gradient.mean)
    return np.array(found)


def independent(x: Any) -> bool:
    return attack.Fails(None, 0.3).share > draw(x)


def draw(x: Any) -> float:
    import hashlib

    return int.from_bytes(hashlib.blake2b(x.tobytes(), digest_size=8).digest(), "little") / 2**64


EXACT = COEFFICIENTS * math.exp(0.5 * SIGMA**2 * float(COEFFICIENTS @ COEFFICIENTS))
"""Gradient of E exp(a (0 + sigma eps)): a exp(sigma^2 a.a / 2)."""

ESTIMATORS = {
    "none": esopt.Score(baseline=esopt.NoBaseline()),
    "leave one out": esopt.Score(baseline=esopt.LeaveOneOut()),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_gradient_has_no_bias_where_failures_do_not_depend_on_x(name: str):
    found = estimates(ESTIMATORS[name], independent)
    z = (found.mean(axis=0) - EXACT) / (found.std(axis=0, ddof=1) / math.sqrt(len(found)))

    assert np.abs(z).max() < 4.0
    wrong = (0.7 * found.mean(axis=0) - EXACT) / (found.std(axis=0, ddof=1) / math.sqrt(len(found)))
    assert np.abs(wrong).max() > 10.0  # failures counted as zeros would show


def test_where_failures_depend_on_x_it_is_the_gradient_given_success():
    """Of a half space: E[f eps | no row of the block failed] / sigma, which a long sum of its own confirms."""
    found = estimates(esopt.Score(baseline=esopt.NoBaseline()), lambda x: x[0] > 0.2)
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((400_000, 5))
    usable = np.abs(rows[:, 0]) * SIGMA <= 0.2  # an antithetic pair is lost as a whole
    rows = rows[usable]
    pairs = 0.5 * (np.exp(SIGMA * rows @ COEFFICIENTS) - np.exp(-SIGMA * rows @ COEFFICIENTS))[:, None] * rows / SIGMA
    expected, error = pairs.mean(axis=0), pairs.std(axis=0) / math.sqrt(len(pairs))
    z = (found.mean(axis=0) - expected) / np.hypot(found.std(axis=0, ddof=1) / math.sqrt(len(found)), error)

    assert np.abs(z).max() < 4.0
    assert abs(found.mean(axis=0)[0] - EXACT[0]) > 0.1  # and not that of J


def hangs(x: Any) -> float:
    if draw(x) < 0.1:
        time.sleep(3600.0)
    return float(x @ x)


def crashes(x: Any) -> float:
    if draw(x) < 0.1:
        raise RuntimeError("lost")
    return float(x @ x)


@pytest.mark.slow
def test_what_hangs_is_what_fails():
    """In the same bits: all that is known of failures holds for hangs."""
    settings: dict[str, Any] = {"strategy": esopt.CMAES(), "generations": 4, "seed": 2, "on_error": "nan"}
    hung = esopt.minimize(hangs, np.ones(10), workers=2, timeout=2.0, **settings)
    raised = esopt.minimize(crashes, np.ones(10), **settings)

    assert hung.failures["timeout"] == raised.failures["exception"] > 0
    assert hung.x.tobytes() == raised.x.tobytes()
    assert hung.mean.tobytes() == raised.mean.tobytes()
