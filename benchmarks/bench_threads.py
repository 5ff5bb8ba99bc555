"""Two threads against one, at d = 1e6: tell, and the Compiled evaluator with a cheap function.

    python benchmarks/bench_threads.py [--quick] [--save]

Needs two idle processors: on a busy machine the wall clock says nothing about this. The column "CPU" is the time of the
calling thread, which does all of the serial part and a share of the rest. Both give equal bits, which is checked.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import Report, main, measure
from bench_generation import falling


def run(report: Report, args: argparse.Namespace) -> None:
    os.environ.setdefault("NUMBA_NUM_THREADS", "2")
    import numba

    import esopt

    if numba.config.NUMBA_NUM_THREADS < 2:
        report.note("numba has one thread here: nothing to compare")
        return
    dim = 200_000 if args.quick else 1_000_000
    rounds = args.rounds or (3 if args.quick else 21)

    def with_threads(count: int, call: Callable[[], Any]) -> Any:
        numba.set_num_threads(count)
        return call()

    def compare(what: str, call: Callable[[], Any]) -> None:
        cases = {"1 thread": lambda: with_threads(1, call), "2 threads": lambda: with_threads(2, call)}
        samples = measure(cases, rounds=rounds, warmup=2, seconds=0.0, cpu_clock=time.thread_time)
        report.add(what, samples)
        report.figure(f"{what}: 2 threads against 1", samples["1 thread"] / samples["2 threads"], "x", goal=1.7)

    for strategy, n in (("openai_es", 256), ("pgpe", 256)):
        what = f"{strategy} tell d={dim:.0e} n={n}".replace("e+0", "e")
        if args.only not in what:
            continue
        means = []
        for count in (1, 2):
            es = esopt.Optimizer(getattr(esopt, strategy)(n=n), np.ones(dim), seed=1)
            values = np.random.default_rng(0).normal(size=n)
            with_threads(count, lambda es=es, values=values: es.tell(values))
            means.append(es.mean)
        np.testing.assert_array_equal(*means)
        source = falling(n)
        compare(what, lambda es=es, source=source: es.tell(source()))

    n = 64
    what = f"Compiled d={dim:.0e} n={n}".replace("e+0", "e")
    if args.only not in what:
        return
    try:
        from esopt import Compiled
    except ImportError as error:
        report.note(f"Compiled: {error}")
        return

    @numba.njit
    def sphere(x: Any) -> float:
        total = 0.0
        for value in x:
            total += value * value
        return total

    population = esopt.Optimizer(esopt.openai_es(n=n), np.ones(dim), seed=1).population()
    evaluator = Compiled(esopt.Objective(sphere))
    state = evaluator.init()
    found = [with_threads(count, lambda: evaluator.evaluate(population, state)[0].values) for count in (1, 2)]
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0][:2], np.square(population.rows(0, 2)).sum(axis=1), rtol=1e-9)
    compare(what, lambda: evaluator.evaluate(population, state))
    evaluator.close()


if __name__ == "__main__":
    main("threads", run, __doc__)
