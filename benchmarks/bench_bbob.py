"""Share of (problem, target) pairs of BBOB that the default of `minimize` and its peers solve, at three budgets.

    python benchmarks/bench_bbob.py [--quick] [--rounds 15] [--only "d=5"] [--save]

24 functions, d = 2, 3, 5, 10, 20, instances 1 to ``--rounds`` (15 by default), 51 targets 1e2 ... 1e-8 above the
minimum; x0 uniform in [-4, 4]^d, sigma0 = 2, no bounds. One anytime run per problem, of 10,000 d evaluations (less for
those that cannot use more), scored at its prefixes: no side sees budget or target; every evaluation counts. Also on
copies of the separable functions f1 to f5 with rotated axes. Needs coco-experiment; peers: ``_bbob_solvers.py``.

All cores, hours. With ``--save`` each instance is kept in results/bbob.npz (evaluations at which targets were hit) as
soon as it is there: a run that was stopped goes on where it was. Remove the file to begin anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import joblib
import numpy as np
from _bbob import Case, Hits, solve
from _bbob_solvers import ENTRIES
from _bench import Report, main
from _peers import installed

BUDGETS = {100: 0.48, 1_000: 0.74, 10_000: 0.89}
DIMS = (20, 10, 5, 3, 2)
OURS, REFERENCE = "esopt default", "pycma BIPOP"
ROTATED = (OURS, REFERENCE)
GROUPS = {
    "separable": (1, 5),
    "moderate": (6, 9),
    "ill-conditioned": (10, 14),
    "multimodal": (15, 19),
    "weak": (20, 24),
}


def cells(dims: list[int]) -> dict[str, Callable[[Case], bool]]:
    """Return what shares are reported of: names and the cases that belong to them."""
    found: dict[str, Callable[[Case], bool]] = {
        "total": lambda case: case.suite == "bbob",
        "total without f3 and f4": lambda case: case.suite == "bbob" and case.function not in (3, 4),
        "rotated f1 to f5": lambda case: case.suite == "rotated",
        "f1 to f5 as they are": lambda case: case.suite == "bbob" and case.function <= 5,
    }
    for dim in dims:
        found[f"d={dim}"] = lambda case, dim=dim: case.suite == "bbob" and case.dim == dim
    for name, (a, b) in GROUPS.items():
        found[f"{name} functions"] = lambda case, a=a, b=b: case.suite == "bbob" and a <= case.function <= b
    return found


def shares(hits: Hits, cases: list[Case], budget: int) -> Mapping[str, np.ndarray]:
    """Return the share of targets solved within ``budget`` d, (cases,), of each solver that ran them all as long."""
    found = {}
    for name in ENTRIES:
        rows = [hits.known.get((case, name)) for case in cases]
        if rows and all(row is not None and row[2] >= budget for row in rows):
            limits = [budget * case.dim for case in cases]
            kept = [row[0] for row in rows if row is not None]
            found[name] = np.array([np.mean((h > 0) & (h <= n)) for h, n in zip(kept, limits, strict=True)])
    return found


def score(report: Report, hits: Hits, cases: list[Case]) -> None:
    """Report shares in total, by dimension and by group, and the paired differences from pycma."""
    dims = sorted({case.dim for case in cases})
    for budget, goal in BUDGETS.items():
        for cell, inside in cells(dims).items():
            found = shares(hits, [case for case in cases if inside(case)], budget)
            for name, share in found.items():
                aim = goal if (cell, name) == ("total", OURS) and len(dims) == len(DIMS) else None
                report.figure(f"BBOB {cell}, {budget}d: solved by {name}", [float(share.mean())], "", goal=aim)
            if OURS in found and REFERENCE in found and len(found[OURS]) > 1:
                apart = found[OURS] - found[REFERENCE]
                error = float(apart.std(ddof=1) / np.sqrt(apart.size)) or np.inf
                what = f"BBOB {cell}, {budget}d: esopt less pycma, in paired standard errors"
                report.figure(what, [float(apart.mean()) / error], "", goal=-2.0 if cell.startswith("d=") else None)
    for dim in dims:
        for name in ENTRIES:
            costs = [found[1] for (case, solver), found in hits.known.items() if (case.dim, solver) == (dim, name)]
            if costs:
                report.figure(f"BBOB d={dim}: microseconds per evaluation, f included, {name}", costs, "us", "<=")


def collect(hits: Hits, names: list[str], cases: list[Case], largest: int) -> None:
    """Run what is not known yet, on all cores."""
    budgets = {name: min(largest, ENTRIES[name].budget) for name in names}
    jobs = [
        joblib.delayed(solve)(case, name, ENTRIES[name].solver, budgets[name])
        for case in cases
        for name in (names if case.suite == "bbob" else ROTATED)
        if name in names and (case, name) not in hits.known
    ]
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        hits.add(joblib.Parallel(-1, batch_size=1)(jobs), budgets)


def run(report: Report, args: argparse.Namespace) -> None:
    if not installed("cocoex"):
        report.note("coco-experiment is not installed: skipped")
        return
    names = [name for name, entry in ENTRIES.items() if installed(*entry.packages)]
    for name in set(ENTRIES) - set(names):
        report.note(f"{name} is not installed: skipped")
    dims = [dim for dim in ((5, 2) if args.quick else DIMS) if not args.only or args.only == f"d={dim}"]
    largest, instances = (100, 1) if args.quick else (10_000, args.rounds or 15)
    hits, cases = Hits("bbob"), []
    if not args.save:
        hits.known.clear()
    for instance in range(1, instances + 1):
        new = [Case("bbob", f, dim, instance) for dim in dims for f in range(1, 25)]
        new += [Case("rotated", f, dim, instance) for dim in dims for f in range(1, 6)]
        collect(hits, names, new, largest)
        cases += new
        if args.save:
            hits.save()
    report.note("commits: " + ", ".join(sorted({found[3] for found in hits.known.values()})))
    score(report, hits, cases)


if __name__ == "__main__":
    main("bbob", run, __doc__)
