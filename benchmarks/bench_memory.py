"""Peak memory growth of five generations, in vectors of d float64 numbers.

    python benchmarks/bench_memory.py [--quick] [--save]

Every case runs in a fresh process: imports, a tiny problem that compiles or loads everything, then a reading, then x0,
the optimizer and five generations. Growth is the peak of the resident set above that reading: x0, the optimizer's
state, error bars and the buffers of two threads all count. Rows are not materialised by esopt; evosax has no other way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import Report, main
from _peers import installed

GENERATIONS = 5


def status(field: str) -> int:
    """Return VmRSS or VmHWM of this process in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def begin() -> tuple[int, bool]:
    """Return the resident set now, and whether its peak could be reset to it."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return status("VmRSS"), False
    return status("VmRSS"), True


def peak() -> int:
    """Return the peak of the resident set in bytes."""
    return max(status("VmHWM"), status("VmRSS"))


Run = Callable[[str, int, int], None]
"""Five generations of a strategy (by name) on the sphere: (strategy, dim, n)."""


def rows() -> Run:
    """Return a run of esopt that evaluates candidates one by one in Python."""
    import esopt

    def go(strategy: str, dim: int, n: int) -> None:
        es = esopt.Optimizer(getattr(esopt, strategy)(n=n), np.ones(dim), seed=1)
        for _ in range(GENERATIONS):
            population = es.population()
            es.tell([float(x @ x) for x in (population[i] for i in range(len(population)))])

    return go


def jitted_sphere() -> Callable[[Any], float]:
    """Return the sphere as a numba function."""
    import numba

    @numba.njit
    def sphere(x: Any) -> float:
        total = 0.0
        for value in x:
            total += value * value
        return total

    return sphere


def compiled() -> Run:
    """Return a run of esopt whose candidates exist in compiled code only."""
    import esopt

    evaluator = esopt.Compiled(esopt.Objective(jitted_sphere()))

    def go(strategy: str, dim: int, n: int) -> None:
        es = esopt.Optimizer(getattr(esopt, strategy)(n=n), np.ones(dim), seed=1)
        state = evaluator.init()
        for _ in range(GENERATIONS):
            evals, state = evaluator.evaluate(es.population(), state)
            es.learn(evals, state)

    return go


def minimize() -> Run:
    """Return a run of esopt.minimize with a numba function: its loop and its result count too."""
    import esopt

    sphere = jitted_sphere()

    def go(strategy: str, dim: int, n: int) -> None:
        esopt.minimize(sphere, np.ones(dim), strategy=getattr(esopt, strategy)(n=n), generations=GENERATIONS)

    return go


def evosax() -> Run:
    """Return a run of evosax, ask and tell compiled one by one, the objective in numpy."""
    from _peers import evosax as build

    def go(strategy: str, dim: int, n: int) -> None:
        peer = build(strategy, dim, n)
        for _ in range(GENERATIONS):
            peer.tell(np.array([float(x @ x) for x in np.asarray(peer.ask())]))

    return go


RUNS = {"rows": rows, "compiled": compiled, "minimize": minimize, "evosax": evosax}
CASES = [
    ("compiled", "openai_es", 16.0),
    ("rows", "openai_es", 16.0),
    ("minimize", "openai_es", 16.0),
    ("compiled", "pgpe", None),
]


def child(case: str, strategy: str, dim: int, n: int) -> None:
    """Run one case in this process and print its growth in bytes as JSON."""
    import numba

    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    go = RUNS[case]()
    go(strategy, 64, 8)
    if case != "evosax":
        # Large enough for the parallel kernels, so that their threads have started; small against a vector to come.
        go(strategy, 1 << 14, 64)
    before, was_reset = begin()
    go(strategy, dim, n)
    print(json.dumps({"growth": peak() - before, "reset": was_reset}))


def growth(report: Report, case: str, strategy: str, dim: int, n: int) -> float | None:
    """Return the growth of one case in vectors, measured in a fresh process."""
    command = [sys.executable, __file__, "--child", case, strategy, str(dim), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NUMBA_NUM_THREADS": "2"})
    if done.returncode:
        report.note(f"{case} {strategy} n={n} failed: {done.stderr.strip().splitlines()[-1:]}")
        return None
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if not found["reset"]:
        report.note(f"{case} n={n}: the peak could not be reset; earlier peaks may hide growth")
    return float(found["growth"]) / (8.0 * dim)


def run(report: Report, args: argparse.Namespace) -> None:
    dim = 200_000 if args.quick else 1_000_000
    sizes = (64, 256) if args.quick else (256, 1024)
    for case, strategy, goal in CASES:
        for n in sizes:
            if args.only in f"{case} {strategy} n={n}":
                found = [growth(report, case, strategy, dim, n) for _ in range(args.rounds or (1 if args.quick else 3))]
                if None not in found:
                    what = f"memory d={dim:.0e} n={n}: {strategy}, {case}".replace("e+0", "e")
                    report.figure(what, [value for value in found if value is not None], "vectors", "<=", goal)
    if args.only not in "evosax":
        return
    if not installed("jax", "evosax"):
        report.note("evosax is not installed: skipped")
        return
    value = growth(report, "evosax", "Open_ES", dim, sizes[0])
    if value is not None:
        report.figure(f"memory d={dim:.0e} n={sizes[0]}: evosax Open_ES".replace("e+0", "e"), [value], "vectors", "<=")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main("memory", run, __doc__)
