"""Compiled against a Python loop, and against a hand-written prange loop that has its rows already.

    python benchmarks/bench_compiled.py [--quick] [--save]

The loop gets the matrix of candidates for nothing; Compiled makes every candidate where it is evaluated. Both run with
one thread and with two. All values are checked to be equal to the bit before anything is timed. Whole runs of snes are
timed in compiled code and, with a callback, through ask and tell.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
from _bench import Report, Sample, main, measure


def run(report: Report, args: argparse.Namespace) -> None:
    os.environ.setdefault("NUMBA_NUM_THREADS", "2")
    import numba

    import esopt

    @numba.njit
    def rosenbrock(x: Any) -> float:
        total = 0.0
        for i in range(x.size - 1):
            total += 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2
        return total

    @numba.njit
    def dearer(x: Any) -> float:
        total = 0.0
        for i in range(x.size - 1):
            total += np.exp(-x[i] * x[i]) * np.sin(3.0 * x[i + 1]) + np.sqrt(np.abs(x[i])) * np.cos(x[i + 1])
            total += np.log1p(x[i] * x[i]) * np.tanh(x[i + 1]) + np.cbrt(x[i])
        return total

    @numba.njit(parallel=True)
    def loop(f: Any, rows: Any, out: Any) -> None:
        for i in numba.prange(rows.shape[0]):
            out[i] = f(rows[i])

    rounds = args.rounds or (3 if args.quick else 31)
    n, dim = 1000, 20
    key = esopt.Key(seed=1, generation=3)
    threads = [1, 2] if numba.config.NUMBA_NUM_THREADS >= 2 else [1]

    def with_threads(count: int, call: Any) -> None:
        numba.set_num_threads(count)
        call()

    for sampler in (esopt.Antithetic(), esopt.Gaussian()):
        population = esopt.Population(np.full(dim, 0.5), 0.3, sampler.noise(key, n, dim))
        rows, out = np.asarray(population), np.empty(n)
        for f, goal in ((rosenbrock, 2.5), (dearer, 1.3)):
            what = f"{f.py_func.__name__} d={dim} n={n} {type(sampler).__name__}"
            if args.only not in what:
                continue
            evaluator = esopt.Compiled(f)
            loop(f, rows, out)
            np.testing.assert_array_equal(evaluator.evaluate(population, ())[0].values, out)
            for count in threads:

                def ours(count: int = count, evaluator: Any = evaluator, population: Any = population) -> None:
                    with_threads(count, lambda: evaluator.evaluate(population, ()))

                def theirs(count: int = count, f: Any = f, rows: Any = rows, out: Any = out) -> None:
                    with_threads(count, lambda: loop(f, rows, out))

                samples = measure({"Compiled": ours, "loop over rows": theirs}, rounds=rounds, seconds=0.01)
                label = f"{what}, {count} thread{'s' if count > 1 else ''}"
                report.add(label, samples)
                report.figure(
                    f"{label}: Compiled over loop", samples["Compiled"] / samples["loop over rows"], "x", "<=", goal
                )
                each = Sample(samples["loop over rows"].wall * 1e6 * count / n, samples["loop over rows"].cpu * 1e6 / n)
                report.figure(f"{label}: one call of f", each, "us")
            if f is rosenbrock:
                plain, some = f.py_func, rows[: 50 if args.quick else 500]
                np.testing.assert_allclose([plain(x) for x in some[:5]], out[:5], rtol=1e-12)

                def python(plain: Any = plain, some: Any = some) -> None:
                    for x in some:
                        plain(x)

                samples = measure({"Compiled": ours, "Python": python}, rounds=min(rounds, 7))
                ratio = samples["Python"] / samples["Compiled"]
                scale = n / len(some)
                report.figure(
                    f"{what}: Python loop over Compiled",
                    Sample(ratio.wall * scale, ratio.cpu * scale),
                    "x",
                    ">=",
                    100.0,
                )

    evaluator = esopt.Compiled(rosenbrock)
    small = esopt.Population(np.full(dim, 0.5), 0.3, esopt.Antithetic().noise(key, 2, dim))
    samples = measure(
        {"2 candidates": lambda: evaluator.evaluate(small, ())}, rounds=rounds, cpu_clock=time.thread_time
    )
    report.add("overhead", samples)

    whole_runs(report, rosenbrock, rounds, 300 if args.quick else 2000)


def whole_runs(report: Report, f: Any, rounds: int, generations: int) -> None:
    """Runs of snes in ten dimensions, generations per second: compiled, and with a callback, through ask and tell."""
    import esopt

    def run(**settings: Any) -> Any:
        strategy = esopt.snes()
        return esopt.minimize(f, np.zeros(10), strategy=strategy, generations=generations, seed=1, **settings)

    inside, outside = run(), run(callback=lambda step: None)
    np.testing.assert_array_equal([inside.generations, outside.generations], generations)
    np.testing.assert_array_equal(inside.x, outside.x)
    samples = measure(
        {"compiled": run, "ask and tell": lambda: run(callback=lambda step: None)}, rounds=min(rounds, 15)
    )
    report.add(f"snes, jitted Rosenbrock d=10, {generations} generations", samples)
    for name, sample in samples.items():
        rate = Sample(generations / sample.wall, generations / np.maximum(sample.cpu, 1e-9))
        report.figure(f"snes, jitted Rosenbrock d=10: {name}", rate, "generations/s")
    ratio = samples["ask and tell"] / samples["compiled"]
    report.figure("snes, jitted Rosenbrock d=10: compiled run over ask and tell", ratio, "x", ">=", 20.0)


if __name__ == "__main__":
    main("compiled", run, __doc__)
