"""Step-size rules and population size adaptation: evaluations to 1e-8, success on functions with many optima.

    python benchmarks/bench_step_size.py [--quick] [--save]

CMAES with each rule on the sphere and on the ellipsoid of condition 1e6, from (1, ..., 1) with sigma = 1, at the
default population and at n = 10 d; the two points of TPA count. A figure is the median over seeds with quartiles.
PSACMA is counted on the same functions, and beside CMAES on Rastrigin's and Schaffer's function from random starts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import Report, main

F = Callable[[Any], Any]


def sphere(rows: Any) -> Any:
    return np.square(rows).sum(axis=1)


def ellipsoid(rows: Any) -> Any:
    return np.square(rows) @ 1e6 ** np.linspace(0.0, 1.0, rows.shape[1])


def rastrigin(rows: Any) -> Any:
    return 10.0 * rows.shape[1] + (rows * rows - 10.0 * np.cos(2.0 * np.pi * rows)).sum(axis=1)


def schaffer(rows: Any) -> Any:
    square = rows[:, :-1] ** 2 + rows[:, 1:] ** 2
    return (square**0.25 * (np.sin(50.0 * square**0.1) ** 2 + 1.0)).sum(axis=1)


def evaluations(strategy: Any, f: F, x0: Any, seed: int, target: float, limit: int) -> float:
    """Return the evaluations of a run to ``target``, inf if it ended before."""
    from esopt import Evals

    state, used = strategy.init(np.asarray(x0, np.float64), seed), 0
    while used < limit and not strategy.stop(state):
        values = f(strategy.ask(state).rows())
        used += values.size
        if values.min() <= target:
            return used
        state, _ = strategy.tell(state, Evals(values))
    return math.inf


def rules(report: Report, args: argparse.Namespace) -> None:
    import esopt

    dims, seeds = ((5,), 3) if args.quick else ((10, 40), args.rounds or 7)
    parts = {"CSA": esopt.CSA(), "TPA": esopt.TPA(), "MSR": esopt.MSR(), "PSR": esopt.PSR()}
    for f in (sphere, ellipsoid):
        for dim in dims:
            for n in (None, 10 * dim):
                for name, part in parts.items():
                    what = f"{f.__name__} d={dim} n={n or 'default'}: evaluations to 1e-8, {name}"
                    if args.only not in what:
                        continue
                    strategy = esopt.CMAES(sigma=1.0, n=n, step_size=part)
                    found = [evaluations(strategy, f, np.ones(dim), seed, 1e-8, 10**6) for seed in range(seeds)]
                    report.figure(what, found, "evaluations", "<=")


def sizes(report: Report, args: argparse.Namespace) -> None:
    import esopt

    dims, seeds = ((5,), 3) if args.quick else ((10,), args.rounds or 7)
    for f in (sphere, ellipsoid):
        for dim in dims:
            what = f"{f.__name__} d={dim}: evaluations to 1e-8, PSACMA"
            if args.only in what:
                strategy = esopt.PSACMA(esopt.CMAES(sigma=1.0, active=False))
                found = [evaluations(strategy, f, np.ones(dim), seed, 1e-8, 10**6) for seed in range(seeds)]
                report.figure(what, found, "evaluations", "<=")
    starts = 4 if args.quick else 20
    cases: list[tuple[F, float, float, float]] = [(rastrigin, 3.0, 2.0, 1e-8), (schaffer, 55.0, 45.0, 1e-3)]
    for f, centre, sigma, target in cases:
        for dim in dims:
            for strategy in (esopt.CMAES(sigma=sigma), esopt.PSACMA(esopt.CMAES(sigma=sigma, active=False))):
                what = f"{f.__name__} d={dim}: {{}} to {target:g}, {type(strategy).__name__}"
                if args.only not in what:
                    continue
                found = []
                for seed in range(starts):
                    x0 = centre * (1.0 + 0.6 * np.random.default_rng(seed).uniform(-1.0, 1.0, dim))
                    found.append(evaluations(strategy, f, x0, seed, target, 300_000))
                solved = [used for used in found if used < math.inf]
                report.figure(what.format("share of the starts that get"), [len(solved) / starts], "", ">=")
                if solved:
                    report.figure(what.format("evaluations of those that get"), solved, "evaluations", "<=")


def run(report: Report, args: argparse.Namespace) -> None:
    rules(report, args)
    sizes(report, args)


if __name__ == "__main__":
    main("step_size", run, __doc__, limit=True)
