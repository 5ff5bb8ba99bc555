"""Share of (problem, target) pairs of BBOB with severe noise that strategies for noise and their peers solve.

    python benchmarks/bench_bbob_noisy.py [--quick] [--rounds 3] [--only "d=5"] [--save]

24 functions, d = 5, 10, 20, instances 1 to ``--rounds`` (3 by default), with the Gaussian noise (times exp(N)) and the
Cauchy noise (plus outliers) of bbob-noisy's severe cases; 51 targets 1e2 ... 1e-8, hit by noise-free values of what was
evaluated; 1,000 d evaluations, re-evaluations included; x0 uniform in [-4, 4]^d, sigma0 = 2, no bounds. pycma's
NoiseHandler as in its documentation, with restarts, and cmaes' learning-rate adaptation.
"""

from __future__ import annotations

import argparse

from _bbob import NOISES, Case, Hits, costs, score, usable
from _bbob_solvers import NOISY
from _bench import Report, main
from _peers import installed

DIMS = (20, 10, 5)
OURS, PEERS = "esopt default for noise", ("pycma NoiseHandler", "cmaes LRA")


def run(report: Report, args: argparse.Namespace) -> None:
    if not installed("cocoex"):
        report.note("coco-experiment is not installed: skipped")
        return
    entries = usable(report, NOISY)
    dims = [dim for dim in ((5,) if args.quick else DIMS) if not args.only or args.only == f"d={dim}"]
    largest, instances = (100, 1) if args.quick else (1_000, args.rounds or 3)
    hits, cases = Hits("bbob_noisy", keep=args.save), []
    for instance in range(1, instances + 1):
        cases += [Case(noise, f, dim, instance) for noise in NOISES for dim in dims for f in range(1, 25)]
        hits.collect(entries, cases, largest)
    for budget in (100, 1_000):
        for noise in NOISES:
            found = hits.shares(entries, [case for case in cases if case.suite == noise], budget)
            score(report, f"BBOB with {noise}, {budget}d", found, OURS, dict.fromkeys(PEERS, 0.0))
    costs(report, "BBOB with noise", hits, entries)


if __name__ == "__main__":
    main("bbob_noisy", run, __doc__)
