"""Asynchronous against synchronous runs: evaluations to a target, throughput, and what happens if times depend on x.

Four workers with a virtual clock (esopt.testing.VirtualWorkers), evaluation times 1 / u seconds up to 100, independent
of x; both modes with the same strategies, starts and seeds. A run that ends without the target counts with what it
took: the expected running time is all evaluations over the number of successes. The throughput is evaluations per
second of the virtual clock; the last row measures it with four processes whose f sleeps.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _bench import Report, main

import esopt
from esopt.testing import VirtualWorkers, heavy_tailed

Array = NDArray[np.float64]
WORKERS = 4


def sphere(x: Array) -> float:
    return float(x @ x)


def ellipsoid(x: Array) -> float:
    return float(10.0 ** (6.0 * np.arange(x.size) / (x.size - 1)) @ (x * x))


def gentle(x: Array) -> float:
    """An ellipsoid of condition 100, for strategies with one sigma."""
    return float(10.0 ** (2.0 * np.arange(x.size) / (x.size - 1)) @ (x * x))


def rosenbrock(x: Array) -> float:
    y = x + 1.0
    return float((100.0 * (y[1:] - y[:-1] ** 2) ** 2 + (1.0 - y[:-1]) ** 2).sum())


def rastrigin(x: Array) -> float:
    return float(10.0 * x.size + (x * x - 10.0 * np.cos(2.0 * np.pi * x)).sum())


def steps(x: Array) -> float:
    return float((np.floor(x + 0.5) ** 2).sum())


def noisy(x: Array, seed: int) -> float:
    """A sphere times log-normal noise."""
    return float(x @ x) * math.exp(0.5 * float(np.random.default_rng(seed).standard_normal()))


Case = tuple[str, Callable[[], Any], Callable[..., float], int, float, float]
"""Name, strategy, function, dimension, target, half width of the box of starts."""


def cases(d: int) -> list[Case]:
    plain = {"CMAES": esopt.CMAES, "SepCMA": esopt.SepCMA, "snes": esopt.snes}
    every: list[Case] = []
    for name, make in plain.items():
        every += [
            (f"{name} sphere", make, sphere, d, 1e-8, 2.0),
            (f"{name} ellipsoid", make, ellipsoid, d, 1e-8, 2.0),
            (f"{name} noisy sphere", make, noisy, d, 1e-6, 2.0),
            (f"{name} step", make, steps, d, 0.5, 10.0),
        ]
    every += [
        ("CMAES Rosenbrock", plain["CMAES"], rosenbrock, d, 1e-8, 2.0),
        ("CMAES n = 50 Rastrigin", partial(esopt.CMAES, sigma=2.0, n=50), rastrigin, d, 1e-8, 2.0),
        ("openai_es sphere", _openai, sphere, d, 0.02, 2.0),
        ("openai_es ellipsoid of 100", _openai, gentle, d, 0.2, 2.0),
        ("openai_es noisy sphere", _openai, noisy, d, 0.02, 2.0),
    ]
    larger = {
        "CMAES sphere",
        "CMAES ellipsoid",
        "CMAES noisy sphere",
        "SepCMA ellipsoid",
        "snes sphere",
        "openai_es sphere",
    }
    return [case for case in every if d < 10 or case[0] in larger]


_openai = partial(esopt.openai_es, n=16, sigma=0.02, lr=0.03)


def run(case: Case, mode: str, seed: int) -> tuple[float, bool, float]:
    """Return the evaluations until the target was seen, whether it was, and evaluations per virtual second."""
    _, make, f, d, target, width = case
    start = np.random.default_rng(seed).uniform(-width, width, d)
    seeded = f is noisy
    budget = 3000 if f is steps else 15_000
    found: list[float] = []

    def watched(x: Array, *rest: int) -> float:
        value = f(x, *rest)
        found.append(value)
        return value

    objective = esopt.Objective(watched, seeded=seeded)
    workers = VirtualWorkers(objective, WORKERS, heavy_tailed(seed + 1000))

    def stop(step: esopt.Step) -> None:
        if min(found) <= target:
            raise StopIteration

    esopt.minimize(
        None, start, evaluator=workers, strategy=make(), mode=mode, evaluations=budget, seed=seed, callback=stop,
        final_evaluations=0, seeded=seeded,
    )  # fmt: skip
    hits = np.flatnonzero(np.array(found) <= target)
    took = int(hits[0]) + 1 if hits.size else len(found)
    return float(took), bool(hits.size), len(found) / workers.now


def compare(report: Report, pool: Executor, case: Case, seeds: int) -> list[float]:
    """Add a row with the ratio of evaluations; return the ratios of the throughputs."""
    jobs = [{mode: pool.submit(run, case, mode, seed) for mode in ("sync", "async")} for seed in range(seeds)]
    both = [{mode: job.result() for mode, job in one.items()} for one in jobs]
    logs = [math.log(one["async"][0] / one["sync"][0]) for one in both if one["async"][1] and one["sync"][1]]
    speed = [one["async"][2] / one["sync"][2] for one in both]
    share = {mode: sum(one[mode][1] for one in both) for mode in ("sync", "async")}
    ert = {mode: sum(one[mode][0] for one in both) / max(1, share[mode]) for mode in share}
    name = f"{case[0]}, d = {case[3]}"
    if logs:
        middle, error = float(np.mean(logs)), float(np.std(logs, ddof=1) / math.sqrt(len(logs))) if logs[1:] else 0.0
        values = [math.exp(middle - error), math.exp(middle), math.exp(middle + error)]
        report.figure(f"evaluations, async / sync, mean and standard error: {name}", _three(values), "x", "<=", 1.0)
    report.note(
        f"{name}: reached {share['sync']} (sync) and {share['async']} (async) of {seeds} times, expected running time "
        f"{ert['sync']:.0f} and {ert['async']:.0f} evaluations, ratio {ert['async'] / ert['sync']:.3f}"
    )
    return speed


def _three(values: list[float]) -> list[float]:
    """Return numbers whose quartiles are ``values``: the mean and one standard error to each side."""
    low, middle, high = values
    return [low, low, middle, high, high]


def biased(report: Report, seeds: int) -> None:
    """Times that depend on x: a region that takes 100 times as long, and where the optimum is."""
    for name, slow in (("slow on the side of the optimum", -1.0), ("slow on the other side", 1.0)):
        ratios, worse = [], []
        for seed in range(seeds):
            took = {}
            for mode in ("sync", "async"):
                workers = VirtualWorkers(
                    sphere, WORKERS, lambda x, number, slow=slow: 100.0 if slow * (x[0] - 1.0) > 0.0 else 1.0
                )
                start = np.random.default_rng(seed).uniform(1.0, 3.0, 5)
                found = esopt.minimize(
                    None, start, evaluator=workers, strategy=esopt.CMAES(), mode=mode, evaluations=10_000, seed=seed,
                    target=1e-8, final_evaluations=0,
                )  # fmt: skip
                took[mode] = (found.evaluations, workers.now)
            ratios.append(took["async"][0] / took["sync"][0])
            worse.append(took["sync"][1] / took["async"][1])
        report.figure(f"evaluations, async / sync: CMAES sphere, d = 5, {name}", ratios, "x")
        report.figure(f"time to the target, sync / async: CMAES sphere, d = 5, {name}", worse, "x")


def sleeps(x: Array) -> float:
    """A sphere that takes between 20 milliseconds and 2 seconds."""
    bits = int(np.ascontiguousarray(x).view(np.uint64).sum() % np.uint64(2**53))
    u = float(np.random.default_rng(bits).uniform())
    time.sleep(0.02 * min(100.0, 1.0 / u))
    return float(x @ x)


def really(report: Report, evaluations: int) -> None:
    """Four processes whose f sleeps."""
    speed: Mapping[str, list[float]] = {"sync": [], "async": []}
    for seed in range(2):
        for mode, rates in speed.items():
            began = [0.0, 0.0]

            def note(step: esopt.Step, began: list[float] = began) -> None:
                if began[0] == 0.0:
                    began[:] = time.perf_counter(), step.evaluations  # once the workers are there

            found = esopt.minimize(
                sleeps, [1.0] * 5, workers=WORKERS, strategy=esopt.CMAES(), mode=mode, evaluations=evaluations,
                seed=seed, callback=note, final_evaluations=0,
            )  # fmt: skip
            rates.append((found.evaluations - began[1]) / (time.perf_counter() - began[0]))
    ratios = [a / s for a, s in zip(speed["async"], speed["sync"], strict=True)]
    report.figure("throughput, async / sync: four processes whose f sleeps", ratios, "x", ">=", 1.8)


def measure(report: Report, args: argparse.Namespace) -> None:
    seeds = args.rounds or (2 if args.quick else 10)
    ratios: list[float] = []
    pairs: list[float] = []
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for case in (case for d in ((5,) if args.quick else (5, 10)) for case in cases(d)):
            if args.only in f"{case[0]}, d = {case[3]}":
                speed = compare(report, pool, case, seeds if case[3] < 10 else seeds * 3 // 5)
                (pairs if case[0].startswith("openai_es") else ratios).extend(speed)
    if ratios:
        report.figure("throughput, async / sync: CMAES, SepCMA, snes", ratios, "x", ">=", 1.8)
    if pairs:
        report.figure("throughput, async / sync: openai_es, n = 16, in pairs", pairs, "x", ">=", 1.8)
    if not args.only:
        biased(report, seeds)
        really(report, 60 if args.quick else 240)


if __name__ == "__main__":
    main("async", measure, __doc__)
