"""Integer coordinates, d = 20, half of them integers: how often a run reaches 1e-10, and after how many evaluations.

    python benchmarks/bench_integer.py [--quick] [--save]

Problems and starts are those of Hamano et al. (2022), arXiv:2205.13482: N_int = 10, x0 uniform in [1, 3]
(0.5 for binary variables), sigma 1, integers within [-10, 10]. "LateInt" is ours: 1e6 |continuous|^2 + |integers|^2,
where the integers matter when the others have converged. A run that has not reached 1e-10 after 30,000 evaluations, or
was ended by a stop rule, failed. Restarts are left out on both sides: what is measured is one run. The stop rules of
peers are off, those of esopt are on.

A figure is the share of the seeds that succeeded, and for these the evaluations: median and quartiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from _bench import Report, main
from _peers import installed

DIM, INTEGERS = 20, 10
BUDGET, TARGET = 30_000, 1e-10
STRETCHED = 1000.0 ** (np.arange(DIM) / (DIM - 1))


def sphere_int(x: Any) -> float:
    return float(x @ x)


def ellipsoid_int(x: Any) -> float:
    return float(np.square(STRETCHED * x).sum())


def sphere_one_max(x: Any) -> float:
    return float(np.square(x[:INTEGERS]).sum() + INTEGERS - x[INTEGERS:].sum())


def sphere_leading_ones(x: Any) -> float:
    return float(np.square(x[:INTEGERS]).sum() + INTEGERS - np.cumprod(x[INTEGERS:]).sum())


def late_int(x: Any) -> float:
    return float(1e6 * np.square(x[:INTEGERS]).sum() + np.square(x[INTEGERS:]).sum())


PROBLEMS: dict[str, tuple[Callable[[Any], float], bool]] = {
    "SphereInt": (sphere_int, False),
    "EllipsoidInt": (ellipsoid_int, False),
    "SphereOneMax": (sphere_one_max, True),
    "SphereLeadingOnes": (sphere_leading_ones, True),
    "LateInt": (late_int, False),
}


def begin(binary: bool, seed: int) -> tuple[Any, Any, Any]:
    """Return x0 and the bounds."""
    x0 = np.random.default_rng(seed).uniform(1.0, 3.0, DIM)
    low, high = np.full(DIM, -np.inf), np.full(DIM, np.inf)
    low[INTEGERS:], high[INTEGERS:] = (0.0, 1.0) if binary else (-10.0, 10.0)
    if binary:
        x0[INTEGERS:] = 0.5
    return x0, low, high


def ours(name: str, problem: str, seed: int) -> tuple[bool, int]:
    import esopt

    f, binary = PROBLEMS[problem]
    x0, low, high = begin(binary, seed)
    es = esopt.Optimizer(
        getattr(esopt, name)(sigma=1.0), x0, seed, evaluations=BUDGET, target=TARGET,
        bounds=(low, high), integer=np.arange(INTEGERS, DIM),
    )  # fmt: skip
    while not es.stop():
        es.tell([f(x) for x in es.ask()])
    return es.result.value <= TARGET, es.result.evaluations


def cmaes(problem: str, seed: int) -> tuple[bool, int]:
    from cmaes import CMAwM

    f, binary = PROBLEMS[problem]
    x0, low, high = begin(binary, seed)
    steps = (np.arange(DIM) >= INTEGERS).astype(float)
    es, used = CMAwM(mean=x0, sigma=1.0, bounds=np.stack([low, high], axis=1), steps=steps, seed=seed), 0
    while used + es.population_size <= BUDGET:
        pairs = [es.ask() for _ in range(es.population_size)]
        values = [f(whole) for whole, _ in pairs]
        used += len(values)
        if min(values) <= TARGET:
            return True, used
        es.tell([(raw, value) for (_, raw), value in zip(pairs, values, strict=True)])
    return False, used


def pycma(problem: str, seed: int) -> tuple[bool, int]:
    import cma

    f, binary = PROBLEMS[problem]
    x0, low, high = begin(binary, seed)
    bounds = [[None if np.isinf(b) else b for b in bound] for bound in (low, high)]
    never = {"tolx": 0, "tolfun": 0, "tolfunhist": 0, "tolflatfitness": 10**9, "tolstagnation": 10**9}
    whole = {"integer_variables": list(range(INTEGERS, DIM)), "bounds": bounds}
    es, used = cma.CMAEvolutionStrategy(x0, 1.0, {"seed": seed, "verbose": -9, **whole, **never}), 0
    while used + es.popsize <= BUDGET and not es.stop():
        rows = es.ask()
        values = [f(x) for x in rows]
        used += len(values)
        if min(values) <= TARGET:
            return True, used
        es.tell(rows, values)
    return False, used


def methods() -> dict[str, Callable[[str, int], tuple[bool, int]]]:
    found: dict[str, Callable[[str, int], tuple[bool, int]]] = {
        "CMAES": partial(ours, "CMAES"),
        "SepCMA": partial(ours, "SepCMA"),
    }
    if installed("cmaes"):
        found["cmaes CMAwM"] = cmaes
    if installed("cma"):
        found["pycma"] = pycma
    return found


def run(report: Report, args: argparse.Namespace) -> None:
    np.seterr(all="ignore")  # peers that diverge
    seeds = range(1, (args.rounds or (3 if args.quick else 30)) + 1)
    if not installed("cma", "cmaes"):
        report.note("cma or cmaes is not installed and was left out")
    with ProcessPoolExecutor(2) as pool:
        for problem in PROBLEMS:
            for name, method in methods().items():
                what = f"{problem}, {len(seeds)} seeds: {name}"
                if args.only not in what:
                    continue
                ends = list(pool.map(method, [problem] * len(seeds), seeds))
                report.figure(f"{what}, share of successes", [np.mean([found for found, _ in ends])], "")
                used = [evaluations for found, evaluations in ends if found]
                if used:
                    report.figure(f"{what}, evaluations", used, "")


if __name__ == "__main__":
    main("integer", run, __doc__)
