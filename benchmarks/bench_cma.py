"""CMAES: evaluations to a target against pycma, time of a generation against the fastest peers, compiled runs.

    python benchmarks/bench_cma.py [--quick] [--save]

The numbers of evaluations are those of whole runs to f <= 1e-8, medians over seeds, from the same starts and with the
same first sigma and population size. Times are those of ask and tell (and of our stop rules) with one thread; a
compiled run is timed as a whole, but for the compilation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import Report, main, measure
from _peers import Peer, check, cmaes, fcmaes, installed, modcma, pycma

FUNCTIONS = ("sphere", "ellipsoid", "cigar", "discus", "rosenbrock")


def functions() -> dict[str, Any]:
    """Return the test functions, compiled."""
    import numba

    @numba.njit
    def sphere(x: Any) -> float:
        return (x * x).sum()

    @numba.njit
    def ellipsoid(x: Any) -> float:
        total = 0.0
        for i in range(x.size):
            total += 10.0 ** (6.0 * i / (x.size - 1)) * x[i] * x[i]
        return total

    @numba.njit
    def cigar(x: Any) -> float:
        return x[0] * x[0] + 1e6 * (x[1:] * x[1:]).sum()

    @numba.njit
    def discus(x: Any) -> float:
        return 1e6 * x[0] * x[0] + (x[1:] * x[1:]).sum()

    @numba.njit
    def rosenbrock(x: Any) -> float:
        total = 0.0
        for i in range(x.size - 1):
            total += 100.0 * (x[i + 1] - x[i] * x[i]) ** 2 + (1.0 - x[i]) ** 2
        return total

    return dict(zip(FUNCTIONS, (sphere, ellipsoid, cigar, discus, rosenbrock), strict=True))


def start(name: str, dim: int, seed: int) -> np.ndarray:
    """Return where run ``seed`` begins: around 0 on Rosenbrock's function, otherwise up to 3 away from the optimum."""
    uniforms = np.asarray([((seed + 1) * (j + 1) * 0.618033988749895) % 1.0 for j in range(dim)])
    return 0.1 * (uniforms - 0.5) if name == "rosenbrock" else 6.0 * uniforms - 3.0


def theirs(f: Any, x0: np.ndarray, sigma: float, seed: int) -> tuple[int, float]:
    """Return the evaluations of a run of pycma and the best value."""
    import cma

    options = {"ftarget": 1e-8, "verbose": -9, "seed": seed + 1, "maxfevals": 10**6}
    es = cma.CMAEvolutionStrategy(x0, sigma, options)
    while not es.stop():
        rows = es.ask()
        es.tell(rows, [f(np.asarray(x)) for x in rows])
    return int(es.result.evaluations), float(es.result.fbest)


def keep(counts: list[float], used: int, value: float) -> None:
    """Count a run if it got there; on Rosenbrock's function some end in the local optimum."""
    if value <= 1e-8:
        counts.append(used)


def evaluations(report: Report, args: argparse.Namespace) -> None:
    """Whole runs to 1e-8: a wrong constant shows here."""
    import esopt

    dims, runs = ((5,), 3) if args.quick else ((5, 10, 20, 40), args.rounds or 9)
    peer = installed("cma")
    worst = []
    for name, f in functions().items():
        for dim in dims:
            if args.only not in f"evaluations of {name} d={dim}":
                continue
            sigma = 0.5 if name == "rosenbrock" else 2.0
            counts: dict[str, list[float]] = {"esopt": [], "pycma": []}
            for seed in range(runs):
                x0 = start(name, dim, seed)
                own = esopt.minimize(
                    f, x0, strategy=esopt.CMAES(sigma=sigma), target=1e-8, evaluations=10**6, seed=seed
                )
                keep(counts["esopt"], own.evaluations, own.value)
                if peer:
                    used, value = theirs(f, x0, sigma, seed)
                    keep(counts["pycma"], used, value)
            row = f"{name} d={dim}: evaluations to 1e-8"
            for who, found in counts.items():
                if len(found) < runs and (peer or who == "esopt"):
                    report.note(f"{row}: {runs - len(found)} of {runs} runs of {who} ended elsewhere and do not count")
            report.figure(f"{row}, esopt", counts["esopt"], "evaluations", "<=")
            if counts["pycma"]:
                report.figure(f"{row}, pycma", counts["pycma"], "evaluations", "<=")
                ratio = float(np.median(counts["esopt"]) / np.median(counts["pycma"]))
                report.figure(f"{row}, esopt over pycma", [ratio], "x", "<=", 1.1)
                worst.append(ratio)
    if worst:
        report.figure("evaluations to 1e-8: the worst of the ratios to pycma", [max(worst)], "x", "<=", 1.1)


GOALS: dict[tuple[int, int], dict[str, float | None]] = {
    (10, 10): {"pycma CMA": 4.0, "cmaes CMA": 2.0, "fcmaes C++": None, "modcma C++": None},
    (100, 16): {"pycma CMA": 1.0, "fcmaes C++": 1.0 / 1.3, "modcma C++": 1.0 / 1.3},
    (1000, 64): {"pycma CMA": 1.0, "fcmaes C++": 1.0, "modcma C++": 1.0},
}
PEERS: dict[str, tuple[str, Callable[[int, int], Peer]]] = {
    "pycma CMA": ("cma", pycma),
    "cmaes CMA": ("cmaes", cmaes),
    "fcmaes C++": ("fcmaes", fcmaes),
    "modcma C++": ("modcma", modcma),
}


def generation(report: Report, args: argparse.Namespace) -> None:
    """Ask and tell with values that never converge: the distance from a far point."""
    import esopt

    for (dim, n), goals in GOALS.items():
        if args.quick and dim > 100:
            continue
        es = esopt.Optimizer(esopt.CMAES(sigma=0.3, n=n), np.ones(dim), seed=1)

        def own(es: Any = es) -> None:
            es.tell(np.square(es.ask() - 1e6).sum(axis=1))
            es.stop()

        cases: dict[str, Callable[[], object]] = {"esopt": own}
        for name in goals:
            package, build = PEERS[name]
            if not installed(package):
                report.note(f"{package} is not installed: skipped")
                continue
            check(build(8, 16))
            peer = build(dim, n)
            cases[name] = lambda peer=peer: peer.tell(np.square(np.asarray(peer.ask()) - 1e6).sum(axis=1))
        # Lazy peers decompose once in many generations: a sample has to hold several of those.
        seconds = 0.02 if args.quick else {10: 0.05, 100: 0.2, 1000: 1.5}[dim]
        samples = measure(cases, rounds=args.rounds or (3 if args.quick else 11), seconds=seconds)
        row = f"CMAES d={dim} n={n}, ask + tell"
        report.add(row, samples)
        for name, goal in goals.items():
            if name in samples:
                report.figure(f"{row}: against {name}", samples[name] / samples["esopt"], "x", ">=", goal)


def compiled(report: Report, args: argparse.Namespace) -> None:
    """Whole runs on a jitted Rosenbrock function in ten dimensions, evaluations per second."""
    import esopt

    f, dim, n = functions()["rosenbrock"], 10, 10
    budget = 20_000 if args.quick else 100_000
    rates: dict[str, list[float]] = {}

    def timed(name: str, run: Callable[[], int]) -> None:
        began = time.process_time()
        count = run()
        rates.setdefault(name, []).append(count / (time.process_time() - began))

    for strategy in (esopt.CMAES(n=n), esopt.SepCMA(n=n)):
        restarts, evaluator = esopt.Restarts(strategy, esopt.IPOP(1.0)), esopt.Compiled(f)
        name = type(strategy).__name__

        def run(evaluations: int, restarts: Any = restarts, evaluator: Any = evaluator) -> int:
            found = esopt.minimize(
                None, np.zeros(dim), strategy=restarts, evaluator=evaluator, evaluations=evaluations, seed=1
            )
            return int(found.evaluations)

        run(1000)
        rounds = args.rounds or (3 if args.quick else 11)
        for _ in range(rounds):
            timed(f"esopt {name}", lambda run=run: run(budget))
            if name != "CMAES":
                continue
            if installed("cma"):
                timed("pycma", lambda: theirs_for(f, dim, n, budget // 25))
            if installed("fcmaes"):
                timed("fcmaes C++", lambda: fcmaes_for(f, dim, n, budget))
    for name, rate in rates.items():
        report.figure(f"jitted Rosenbrock d=10 n=10, whole run: {name}", rate, "evaluations/s")
    own = rates["esopt CMAES"]
    for name, goal in (("pycma", 30.0), ("fcmaes C++", 1.0)):
        if name in rates:
            report.figure(
                f"compiled run, jitted Rosenbrock d=10: evaluations per second over {name}",
                [a / b for a, b in zip(own, rates[name], strict=True)], "x", ">=", goal,
            )  # fmt: skip


def theirs_for(f: Any, dim: int, n: int, budget: int) -> int:
    """Run pycma for ``budget`` evaluations."""
    import cma

    used = 0
    while used < budget:
        es = cma.CMAEvolutionStrategy(np.zeros(dim), 0.5, {"popsize": n, "verbose": -9, "maxfevals": budget - used})
        while not es.stop():
            rows = es.ask()
            es.tell(rows, [f(np.asarray(x)) for x in rows])
        used += int(es.result.evaluations)
    return used


def fcmaes_for(f: Any, dim: int, n: int, budget: int) -> int:
    """Run the native ACMA of fcmaes for ``budget`` evaluations; it calls f through Python."""
    from fcmaes import cmaescpp

    used = 0
    while used < budget:
        found = cmaescpp.minimize(f, None, np.zeros(dim), 0.5, popsize=n, max_evaluations=budget - used)
        used += int(found.nfev)
    return used


def run(report: Report, args: argparse.Namespace) -> None:
    for name, part in (("generation", generation), ("compiled", compiled), ("evaluations", evaluations)):
        if args.only in name or name == "evaluations":
            part(report, args)


if __name__ == "__main__":
    main("cma", run, __doc__, limit=True)
