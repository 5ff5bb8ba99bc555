"""Share of (problem, target) pairs of BBOB that the default of `minimize` and its peers solve, at three budgets.

    python benchmarks/bench_bbob.py [--quick] [--rounds 15] [--only "d=5"] [--save]

24 functions, d = 2, 3, 5, 10, 20, instances 1 to ``--rounds`` (15 by default), 51 targets 1e2 ... 1e-8 above the
minimum; x0 uniform in [-4, 4]^d, sigma0 = 2, no bounds. One anytime run per problem, of 10,000 d evaluations on the
first five instances and 1,000 d on the others (less for solvers that cannot use more), scored at its prefixes: no side
sees budget or target; every evaluation counts. Also on copies of the separable functions f1 to f5 with rotated axes.
Needs coco-experiment; peers: ``_bbob_solvers.py``.

All cores, hours: the short runs of all instances come first. With ``--save`` each instance is kept in results/bbob.npz
(evaluations at which targets were hit) as soon as it is there: a run that was stopped goes on where it was. Remove the
file to begin anew. ``--rounds 0 --save`` runs nothing and scores what the file holds, as many instances as are whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from _bbob import Case, Hits, costs, score, usable
from _bbob_solvers import ENTRIES
from _bench import Report, main
from _peers import installed

BUDGETS = {100: 0.48, 1_000: 0.74, 10_000: 0.89}
DIMS = (20, 10, 5, 3, 2)
LONG = 5
"""Instances that get 10,000 d evaluations; the others get 1,000 d."""
OURS, PEER = "esopt default", "pycma BIPOP"
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
        "instance 1": lambda case: case.suite == "bbob" and case.instance == 1,
        "total without f3 and f4": lambda case: case.suite == "bbob" and case.function not in (3, 4),
        "rotated f1 to f5": lambda case: case.suite == "rotated",
        "f1 to f5 as they are": lambda case: case.suite == "bbob" and case.function <= 5,
    }
    for dim in dims:
        found[f"d={dim}"] = lambda case, dim=dim: case.suite == "bbob" and case.dim == dim
    for name, (a, b) in GROUPS.items():
        found[f"{name} functions"] = lambda case, a=a, b=b: case.suite == "bbob" and a <= case.function <= b
    return found


def whole(hits: Hits, cases: list[Case], budget: int) -> int:
    """Return how many instances, from the first on, both sides have finished with the budget."""
    count = 0
    while mine := [case for case in cases if case.instance == count + 1]:
        if any(
            (case, name) not in hits.known or hits.known[case, name][2] < budget
            for case in mine
            for name in (OURS, PEER)
        ):
            break
        count += 1
    return count


def run(report: Report, args: argparse.Namespace) -> None:
    if not installed("cocoex"):
        report.note("coco-experiment is not installed: skipped")
        return
    entries = usable(report, ENTRIES)
    dims = [dim for dim in ((5, 2) if args.quick else DIMS) if not args.only or args.only == f"d={dim}"]
    largest, instances = (100, 1) if args.quick else (10_000, args.rounds or 15)
    hits, cases = Hits("bbob", keep=args.save), []
    for instance in range(1, instances + 1):
        cases += [Case("bbob", f, dim, instance) for dim in dims for f in range(1, 25)]
        cases += [Case("rotated", f, dim, instance) for dim in dims for f in range(1, 6)]
    both = {name: entry for name, entry in entries.items() if name in (OURS, PEER)}
    for budget in sorted({min(largest, 1_000), largest}) if args.rounds != 0 else ():
        for instance in range(1, (LONG if budget > 1_000 else instances) + 1):
            for suite, chosen in (("bbob", entries), ("rotated", both)):
                new = [case for case in cases if (case.suite, case.instance) == (suite, instance)]
                hits.collect(chosen, new, budget)
    report.note("commits: " + ", ".join(sorted({found[3] for found in hits.known.values()})))
    for budget, goal in BUDGETS.items():
        most = min(LONG if budget > 1_000 else instances, whole(hits, cases, budget))
        for cell, inside in cells(sorted(dims)).items():
            found = hits.shares(entries, [case for case in cases if inside(case) and case.instance <= most], budget)
            of = "" if cell == "instance 1" else f", {most} instances" if most > 1 else ", 1 instance"
            aim = goal if cell == "total" and len(dims) == len(DIMS) else None
            score(
                report,
                f"BBOB {cell}, {budget}d{of}",
                found,
                OURS,
                {PEER: -2.0 if cell[:2] == "d=" else None},
                aim,
            )
    costs(report, "BBOB", hits, entries)


if __name__ == "__main__":
    main("bbob", run, __doc__)
