"""Share of (problem, target) pairs of bbob-largescale that large-scale strategies and their peers solve.

    python benchmarks/bench_bbob_large.py [--quick] [--rounds 1] [--only "d=80"] [--save]

24 functions, d = 80, 160, 320, 640, instances 1 to ``--rounds`` (1 by default), 51 targets 1e2 ... 1e-8; 1,000 d
evaluations; x0 uniform in [-4, 4]^d, sigma0 = 2, no bounds; our other strategies at d = 80 only. Hours; with
``--save`` what was run is kept in results/bbob_large.npz every minute: a run that was stopped goes on where it was.
``--rounds 0 --save`` runs nothing and scores what the file holds, and says which functions are not there.
"""

from __future__ import annotations

import argparse

from _bbob import Case, Hits, costs, score, usable
from _bbob_solvers import LARGE, LARGE_OTHERS
from _bench import Report, main
from _peers import installed

DIMS = (80, 160, 320, 640)
OURS, PEERS = "esopt default", ("pycma VkD", "pycma sep", "pypop7 LM-CMA")


def run(report: Report, args: argparse.Namespace) -> None:
    if not installed("cocoex"):
        report.note("coco-experiment is not installed: skipped")
        return
    entries, others = usable(report, LARGE), LARGE_OTHERS
    dims = [dim for dim in (DIMS[:1] if args.quick else DIMS) if not args.only or args.only == f"d={dim}"]
    largest, instances = (10, 1) if args.quick else (1_000, args.rounds or 1)
    hits, cases = Hits("bbob_large", keep=args.save), []
    for dim in dims:
        for function in range(1, 25):
            new = [Case("bbob-largescale", function, dim, i) for i in range(1, instances + 1)]
            cases += new
            if args.rounds != 0:
                hits.collect(entries | others if dim == DIMS[0] else entries, new, largest)
    for budget in (10, 100, 1_000):
        for dim in dims:
            asked = [case for case in cases if case.dim == dim]
            done = [case for case in asked if all((case, name) in hits.known for name in entries)]
            missing = sorted({case.function for case in asked} - {case.function for case in done})
            which = f" without functions {', '.join(map(str, missing))}" if missing else ""
            found = hits.shares(entries | others, done, budget)
            score(report, f"bbob-largescale d={dim}{which}, {budget}d", found, OURS, dict.fromkeys(PEERS, 0.0))
    costs(report, "bbob-largescale", hits, entries | others)


if __name__ == "__main__":
    main("bbob_large", run, __doc__)
