"""Share of (problem, target) pairs of bbob-constrained that AugmentedLagrangian and pycma's fmin_con2 solve.

    python benchmarks/bench_constrained.py [--quick] [--rounds 3] [--only "d=5"] [--save]

54 functions with 1 to 54 constraints, d = 2, 3, 5, 10, instances 1 to ``--rounds`` (1 by default), 41 targets 1e2 ...
1e-6 above the minimum, hit by feasible points only; the suite's own feasible start, sigma0 = 2. One anytime run of
300 d evaluations per problem, an evaluation being one of f and all constraints, scored at its prefixes; no side sees
budget or target. pycma begins again at x0 with twice the population whenever it stops; esopt is the default of
``minimize`` under constraints. Needs coco-experiment. All cores; the runs of one problem follow each other in one
process.
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

TARGETS = 10.0 ** np.linspace(2.0, -6.0, 41)
BUDGETS = (30, 100, 300)
FUNCTIONS = (
    "sphere",
    "ellipsoid",
    "linear",
    "rotated ellipsoid",
    "discus",
    "bent cigar",
    "different powers",
    "Rastrigin",
    "rotated Rastrigin",
)
"""The objectives, each under six sets of constraints."""


class Done(Exception):
    """The budget is used up, or the last target was hit."""


class Counted:
    """A problem that keeps the evaluation at which a feasible point first hit each target."""

    def __init__(self, problem: Any, minimum: float, budget: int) -> None:
        self.problem, self.levels, self.budget = problem, minimum + TARGETS, budget
        self.count, self.next, self.hits = 0, 0, np.full(TARGETS.size, np.inf)

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return f and g <= 0 at x."""
        if self.count >= self.budget or self.next == TARGETS.size:
            raise Done
        self.count += 1
        g, value = np.array(self.problem.constraint(x)), float(self.problem(x))
        while g.max() <= 0.0 and self.next < TARGETS.size and value <= self.levels[self.next]:
            self.hits[self.next] = self.count
            self.next += 1
        return value, g


Solver = Callable[[Counted, np.ndarray, int], None]


def esopt_lagrangian(problem: Counted, x0: np.ndarray, seed: int) -> None:
    """Run what minimize takes by default under constraints, in a loop of one's own."""
    import esopt

    es = esopt.Optimizer(esopt.AugmentedLagrangian(esopt.Restarts(esopt.CMAES(sigma=2.0))), x0, seed)
    while True:
        values, g = zip(*[problem(x) for x in es.ask()], strict=True)
        es.tell(values, constraints=g)


def pycma_fmin_con2(problem: Counted, x0: np.ndarray, seed: int) -> None:
    """Run pycma's fmin_con2, which asks for g and then for f at the same point, over and over."""
    import cma

    n, latest = 4 + int(3 * np.log(x0.size)), [0.0]

    def constraints(x: np.ndarray) -> np.ndarray:
        latest[0], g = problem(x)
        return g

    while True:
        seed += 1
        options = {"verbose": -9, "seed": seed, "popsize": n}
        quiet = {"archives": False, "logging": 0}
        cma.fmin_con2(lambda x: latest[0], x0, 2.0, constraints=constraints, options=options, kwargs_confit=quiet)
        n *= 2


SOLVERS: dict[str, tuple[tuple[str, ...], Solver]] = {
    "esopt": ((), esopt_lagrangian),
    "pycma fmin_con2": (("cma",), pycma_fmin_con2),
}


def open_problem(function: int, dim: int, instance: int) -> tuple[Any, float]:
    """Return a problem and its minimum, from a copy, so that nobody's evaluations are counted twice."""
    import cocoex

    suite = cocoex.Suite("bbob-constrained", f"instances:{instance}", f"function_indices:{function} dimensions:{dim}")
    problem, here = suite[0], os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            problem._best_parameter("print")
            best = np.loadtxt("._bbob_problem_best_parameter.txt").reshape(-1)
        finally:
            os.chdir(here)
    minimum, violated = float(problem(best)), float(np.max(problem.constraint(best)))
    if not violated <= 1e-9:
        raise RuntimeError(f"f{function}, d={dim}: the minimum that COCO gives violates a constraint by {violated}")
    problem.free()
    return suite[0], minimum


def solve(names: list[str], function: int, dim: int, instance: int, budget: int) -> dict[str, Any]:
    """Return the hits (41,) and the microseconds per evaluation, f and g included, of each solver on one problem."""
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    for name in names:
        problem, minimum = open_problem(function, dim, instance)
        counted, begun = Counted(problem, minimum, budget * dim), time.process_time()
        try:
            SOLVERS[name][1](counted, np.array(problem.initial_solution), 1000 * function + 10 * instance + dim)
        except Done:
            pass
        found[name] = (counted.hits, 1e6 * (time.process_time() - begun) / counted.count)
        problem.free()
    return found


def score(report: Report, problems: list[tuple[int, int, int]], found: list[dict[str, Any]], largest: int) -> None:
    """Report shares in total, by dimension and by function, and the paired difference from pycma."""
    dims, names = sorted({dim for _, dim, _ in problems}), list(found[0])
    cells: dict[str, Callable[[int, int], bool]] = {"total": lambda f, d: True}
    cells |= {f"d={dim}": lambda f, d, dim=dim: d == dim for dim in dims}
    cells |= {name: lambda f, d, k=k: (f - 1) // 6 == k for k, name in enumerate(FUNCTIONS)}
    for budget in BUDGETS:
        for cell, inside in cells.items():
            chosen = [i for i, (function, dim, _) in enumerate(problems) if inside(function, dim)]
            if budget > largest or not chosen:
                continue
            shares = {
                name: np.array([np.mean(found[i][name][0] <= budget * problems[i][1]) for i in chosen])
                for name in names
            }
            peer = shares.get("pycma fmin_con2")
            for name, share in shares.items():
                goal = float(peer.mean()) if peer is not None and (cell, name) == ("total", "esopt") else None
                what = f"bbob-constrained {cell}, {budget}d: solved by {name}"
                report.figure(what, [float(share.mean())], "", goal=goal)
            if peer is not None and len(chosen) > 1:
                apart = shares["esopt"] - peer
                error = float(apart.std(ddof=1) / np.sqrt(apart.size)) or np.inf
                what = f"bbob-constrained {cell}, {budget}d: esopt less pycma, in paired standard errors"
                report.figure(what, [float(apart.mean()) / error], "")
    for dim in dims:
        for name in names:
            costs = [found[i][name][1] for i, (_, d, _) in enumerate(problems) if d == dim]
            what = f"bbob-constrained d={dim}: microseconds per evaluation, f and g included, {name}"
            report.figure(what, costs, "us", "<=")


def run(report: Report, args: argparse.Namespace) -> None:
    if not installed("cocoex"):
        report.note("coco-experiment is not installed: skipped")
        return
    names = [name for name, (packages, _) in SOLVERS.items() if installed(*packages)]
    for name in set(SOLVERS) - set(names):
        report.note(f"{name} is not installed: skipped")
    dims = [dim for dim in ((2, 5) if args.quick else (2, 3, 5, 10)) if not args.only or args.only == f"d={dim}"]
    functions, instances = range(1, 55, 9 if args.quick else 1), args.rounds or 1
    problems = [(f, dim, i) for dim in sorted(dims, reverse=True) for f in functions for i in range(1, instances + 1)]
    budget = BUDGETS[0] if args.quick else BUDGETS[-1]
    jobs = (joblib.delayed(solve)(names, function, dim, i, budget) for function, dim, i in problems)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        found = joblib.Parallel(-1, batch_size=1)(jobs)
    if found:
        score(report, problems, found, budget)


if __name__ == "__main__":
    main("constrained", run, __doc__)
