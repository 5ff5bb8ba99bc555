"""Evaluations to a target on smooth functions, d = 100: which directions, and which estimator, for how many rows.

    python benchmarks/bench_targets.py [--quick] [--only quadratic|rosenbrock|logistic|Adam|SGD] [--save]

n = d / 10, d / 2 and 2d rows a generation, sigma = 0.01; Adam, the default rule of GradientES, and plain gradient
descent. The learning rate is tuned for each method, function, rule and n: a climb over powers of two until both
neighbours are worse, then the powers of sqrt(2) beside the best. What is shown is the median over five seeds, with
quartiles, of all evaluations until f(mean) is at the target (30,000 where it never was); looking at the mean is not
counted. The last line of each compares the default sampler and estimator of GradientES with the best of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _bench import Report, main
from numpy.typing import NDArray

from esopt import SGD, Adam, Antithetic, Coordinates, Evals, GradientES, Orthogonal, Regression, Score

DIM, SIGMA = 100, 0.01
NEAR = 1.1
"""How many evaluations more than the best method the default may need."""
RULES: dict[str, tuple[type, float]] = {"Adam": (Adam, -1.0), "SGD": (SGD, 6.0)}
"""And the power of two to begin with: steps that are much too long are found out at once."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """A function of rows, where to start, the value to reach, and about its curvature: the unit of SGD's rates."""

    name: str
    f: Callable[[Array], Array]
    x0: Array
    target: float
    curvature: float


def quadratic() -> Problem:
    """Eigenvalues from 1 to 0.01 in random directions, as far away along each; to 1 % of the start."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
    hessian = (axes * np.logspace(0.0, -2.0, DIM)) @ axes.T
    x0 = axes.sum(axis=1)

    def f(x: Array) -> Array:
        return 0.5 * ((x @ hessian) * x).sum(axis=1)

    return Problem("quadratic", f, x0, 0.01 * float(f(x0[None])[0]), 1.0)


def rosenbrock() -> Problem:
    """From a random start, N(0, 1), down into the valley: from about 4e4 to 150."""

    def f(x: Array) -> Array:
        left, right = x[:, :-1], x[:, 1:]
        return (100.0 * np.square(right - np.square(left)) + np.square(1.0 - left)).sum(axis=1)

    return Problem("rosenbrock", f, np.random.default_rng(2).normal(size=DIM), 150.0, 2000.0)


def logistic() -> Problem:
    """Logistic loss of 500 rows with features of standard deviation 1 to 0.1, and an L2 penalty; to 2 % of the way."""
    random = np.random.default_rng(1)
    features = random.normal(size=(500, DIM)) * np.logspace(0.0, -1.0, DIM)
    weights = 3.0 * random.normal(size=DIM)
    signs = np.where(features @ weights + random.normal(size=500) > 0.0, 1.0, -1.0)
    rows = features * signs[:, None]

    def f(x: Array) -> Array:
        return np.logaddexp(0.0, -(x @ rows.T)).mean(axis=1) + 5e-4 * np.square(x).sum(axis=1)

    best = np.zeros(DIM)
    for _ in range(30):  # Newton's method
        chances = 1.0 / (1.0 + np.exp(rows @ best))
        slope = -(chances @ rows) / len(rows) + 1e-3 * best
        bend = (rows.T * (chances * (1.0 - chances))) @ rows / len(rows) + 1e-3 * np.eye(DIM)
        best = best - np.linalg.solve(bend, slope)
    start, least = (float(f(x[None])[0]) for x in (np.zeros(DIM), best))
    return Problem("logistic", f, np.zeros(DIM), least + 0.02 * (start - least), 0.25)


def methods(n: int) -> dict[str, dict[str, Any]]:
    """Settings of GradientES that use ``n`` evaluations a generation."""
    orthogonal = Antithetic(Orthogonal())
    return {
        "iid pairs": {"sampler": Antithetic(), "estimator": Score()},
        "orthogonal pairs": {"sampler": orthogonal, "estimator": Score()},
        "central differences": {"sampler": Antithetic(Coordinates()), "estimator": Score()},
        "regression": {"sampler": orthogonal, "estimator": Regression()},
        "recycled direction": {"sampler": orthogonal, "estimator": Regression(1), "n": n - 2},
    }


def evaluations(strategy: GradientES, problem: Problem, seed: int, most: float) -> float:
    """Return the evaluations until f(mean) reaches the target.

    Infinity beyond ``most``, if the run diverges, or if f(mean) was no better for 50 generations and a third of it.
    """
    state, used, since = strategy.init(problem.x0, seed), 0, 0
    start = least = float(problem.f(problem.x0[None])[0])
    while used < most:
        rows = strategy.ask(state).rows()
        used += len(rows)
        state, _ = strategy.tell(state, Evals(problem.f(rows)))
        value = float(problem.f(state.mean[None])[0])
        if value <= problem.target:
            return float(used)
        if value < least:
            least, since = value, used
        if not value < 10.0 * start or used - since > max(50 * len(rows), used / 3):
            break
    return np.inf


def tune(strategy: GradientES, problem: Problem, rule: str, seeds: int, limit: float) -> tuple[float, Array]:
    """Return the best learning rate, and the evaluations of each of ``seeds`` runs with it."""
    kind, power = RULES[rule]
    unit = 1.0 / problem.curvature if kind is SGD else 1.0
    found: dict[float, list[float]] = {}

    def tuned(power: float) -> GradientES:
        return replace(strategy, rule=kind(unit * 2.0**power), sigma=SIGMA)

    def median(power: float) -> float:
        if power not in found:
            most = min([limit, *(1.5 * float(np.median(known)) for known in found.values())])
            used: list[float] = []
            while len(used) < seeds and sum(np.isinf(used)) <= seeds // 2:  # Beyond, the median is infinite anyway.
                used.append(evaluations(tuned(power), problem, len(used), most))
            found[power] = used + [np.inf] * (seeds - len(used))
        return float(np.median(found[power]))

    while np.isinf(median(power)) and power > -12.0:
        power -= 1.0
    while True:
        better = min((power - 1.0, power + 1.0), key=median)
        if median(better) >= median(power):
            break
        power = better
    power = min((power, power - 0.5, power + 0.5), key=median)
    for seed, used in enumerate(found[power]):
        if np.isinf(used):
            found[power][seed] = evaluations(tuned(power), problem, seed, limit)
    return unit * 2.0**power, np.array(found[power])


def compare(report: Report, problem: Problem, rule: str, n: int, seeds: int, limit: float) -> None:
    """Report all methods for one function, rule and number of rows."""
    where, medians, known = f"{problem.name} d={DIM} n={n} {rule}", {}, {}
    default = GradientES()
    several = {**methods(n), "default": {"sampler": default.sampler, "estimator": default.estimator}}
    for name, parts in several.items():
        key = repr((parts["sampler"], parts["estimator"]))
        if key not in known:
            known[key] = tune(GradientES(**{"n": n, **parts}), problem, rule, seeds, limit)
        rate, used = known[key]
        medians[name] = float(np.median(used))
        report.figure(f"{where}: {name}, lr {rate:.2g}", np.minimum(used, limit), "evaluations", "<=")
    best = min(medians[name] for name in methods(n))
    goal = NEAR if isinstance(default.rule, RULES[rule][0]) else None
    report.figure(f"{where}: default over best", [medians["default"] / best], "x", "<=", goal)


def run(report: Report, args: argparse.Namespace) -> None:
    """Tune and compare on the functions and with the rules whose names contain ``--only``."""
    seeds, limit = (3, 4000.0) if args.quick else (args.rounds or 5, 30_000.0)
    for problem in (quadratic(), rosenbrock(), logistic()):
        for rule in RULES:
            if args.only in f"{problem.name} {rule}":
                for n in (DIM // 2,) if args.quick else (DIM // 10, DIM // 2, 2 * DIM):
                    compare(report, problem, rule, n, seeds, limit)


if __name__ == "__main__":
    main("targets", run, __doc__)
