"""Share of (problem, target) pairs of BBOB that the default of `minimize` and its peers solve, at three budgets.

    python benchmarks/bench_bbob.py [--quick] [--rounds 15] [--only "d=5"] [--save]

24 functions, d = 2, 3, 5, 10, 20, instances 1 to ``--rounds`` (2 by default), 51 targets 1e2 ... 1e-8 above the
minimum; x0 uniform in [-4, 4]^d, sigma0 = 2, no bounds. One anytime run of 10,000 d evaluations per problem, scored at
its prefixes: no side sees budget or target; every evaluation counts. Needs coco-experiment; the peers are pycma's BIPOP
and SLSQP from random starts in [-4, 4]^d. All cores; the runs of one problem follow each other in one process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
from _bench import Report, main
from _peers import installed

TARGETS = 10.0 ** np.linspace(2.0, -8.0, 51)
BUDGETS = {100: 0.48, 1_000: 0.74, 10_000: 0.89}
GROUPS = {
    "separable": (1, 5),
    "moderate": (6, 9),
    "ill-conditioned": (10, 14),
    "multimodal": (15, 19),
    "weak": (20, 24),
}
Function = Callable[[np.ndarray], float]
Solver = Callable[[Function, np.ndarray, int], None]


class Done(Exception):
    """The budget is used up, or the last target was hit."""


class Counted:
    """A problem that keeps the evaluation at which each target was first hit."""

    def __init__(self, problem: Function, minimum: float, budget: int) -> None:
        self.problem, self.levels, self.budget = problem, minimum + TARGETS, budget
        self.count, self.next, self.hits = 0, 0, np.full(TARGETS.size, np.inf)

    def __call__(self, x: np.ndarray) -> float:
        if self.count >= self.budget or self.next == TARGETS.size:
            raise Done
        self.count += 1
        value = float(self.problem(x))
        while self.next < TARGETS.size and value <= self.levels[self.next]:
            self.hits[self.next] = self.count
            self.next += 1
        return value


def esopt_default(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run what minimize takes by default, in a loop of one's own."""
    import esopt
    from esopt._defaults import default_strategy

    es = esopt.Optimizer(default_strategy(2.0, x0.size, gradients=False, stochastic=False), x0, seed)
    while True:
        es.tell([f(x) for x in es.ask()])


def pycma_bipop(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run pycma with BIPOP restarts."""
    import cma

    cma.fmin(f, x0, 2.0, {"verbose": -9, "seed": seed + 1}, restarts=30, bipop=True)


def slsqp_restarts(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run scipy's SLSQP from x0 and then from random starts."""
    from scipy.optimize import minimize

    rng, start = np.random.default_rng(seed), x0
    while True:
        minimize(f, start, method="SLSQP", options={"maxiter": 10_000, "ftol": 1e-12})
        start = rng.uniform(-4.0, 4.0, x0.size)


SOLVERS: dict[str, tuple[tuple[str, ...], Solver]] = {
    "esopt default": ((), esopt_default),
    "pycma BIPOP": (("cma",), pycma_bipop),
    "SLSQP restarts": ((), slsqp_restarts),
}


def open_problem(function: int, dim: int, instance: int) -> tuple[Any, float]:
    """Return a problem and its minimum, from a copy, so that nobody's evaluations are counted twice."""
    import cocoex

    suite = cocoex.Suite("bbob", f"instances:{instance}", f"function_indices:{function} dimensions:{dim}")
    problem, here = suite[0], os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            problem._best_parameter("print")
            best = np.loadtxt("._bbob_problem_best_parameter.txt").reshape(-1)
        finally:
            os.chdir(here)
    minimum = float(problem(best))
    problem.free()
    return suite[0], minimum


def solve(names: list[str], function: int, dim: int, instance: int, budget: int) -> dict[str, Any]:
    """Return the hits (51,) and the microseconds per evaluation, objective included, of each solver on one problem."""
    warnings.simplefilter("ignore")
    x0 = np.random.default_rng([function, dim, instance]).uniform(-4.0, 4.0, dim)
    found: dict[str, Any] = {}
    for name in names:
        problem, minimum = open_problem(function, dim, instance)
        counted, begun = Counted(problem, minimum, budget * dim), time.process_time()
        try:
            SOLVERS[name][1](counted, x0, 1000 * function + 10 * instance + dim)
        except Done:
            pass
        found[name] = (counted.hits, 1e6 * (time.process_time() - begun) / counted.count)
        problem.free()
    return found


def score(report: Report, problems: list[tuple[int, int, int]], found: list[dict[str, Any]], largest: int) -> None:
    """Report shares in total, by dimension and by group, and the paired differences from pycma."""
    dims, names = sorted({dim for _, dim, _ in problems}), list(found[0])
    cells: dict[str, Callable[[int, int], bool]] = {"total": lambda f, d: True}
    cells |= {f"d={dim}": lambda f, d, dim=dim: d == dim for dim in dims}
    cells |= {f"{name} functions": lambda f, d, a=a, b=b: a <= f <= b for name, (a, b) in GROUPS.items()}
    for budget, goal in BUDGETS.items():
        for cell, inside in cells.items():
            chosen = [i for i, (function, dim, _) in enumerate(problems) if inside(function, dim)]
            if budget > largest or not chosen:
                continue
            shares = {
                name: np.array([np.mean(found[i][name][0] <= budget * problems[i][1]) for i in chosen])
                for name in names
            }
            for name, share in shares.items():
                aim = goal if (cell, name) == ("total", "esopt default") and len(dims) == 5 else None
                report.figure(f"BBOB {cell}, {budget}d: solved by {name}", [float(share.mean())], "", goal=aim)
            if "pycma BIPOP" in shares and len(chosen) > 1:
                apart = shares["esopt default"] - shares["pycma BIPOP"]
                error = float(apart.std(ddof=1) / np.sqrt(apart.size)) or np.inf
                what = f"BBOB {cell}, {budget}d: esopt less pycma, in paired standard errors"
                report.figure(
                    what, [float(apart.mean()) / error], "", goal=-2.0 if cell in {f"d={d}" for d in dims} else None
                )
    for dim in dims:
        for name in names:
            costs = [found[i][name][1] for i, (_, d, _) in enumerate(problems) if d == dim]
            report.figure(f"BBOB d={dim}: microseconds per evaluation, f included, {name}", costs, "us", "<=")


def run(report: Report, args: argparse.Namespace) -> None:
    if not installed("cocoex"):
        report.note("coco-experiment is not installed: skipped")
        return
    names = [name for name, (packages, _) in SOLVERS.items() if installed(*packages)]
    for name in set(SOLVERS) - set(names):
        report.note(f"{name} is not installed: skipped")
    dims = [dim for dim in ((2, 5) if args.quick else (2, 3, 5, 10, 20)) if not args.only or args.only == f"d={dim}"]
    largest, instances = (100, 1) if args.quick else (10_000, args.rounds or 2)
    problems = [
        (f, dim, i) for dim in sorted(dims, reverse=True) for f in range(1, 25) for i in range(1, instances + 1)
    ]
    jobs = (joblib.delayed(solve)(names, function, dim, i, largest) for function, dim, i in problems)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        found = joblib.Parallel(-1, batch_size=1)(jobs)
    if found:
        score(report, problems, found, largest)


if __name__ == "__main__":
    main("bbob", run, __doc__)
