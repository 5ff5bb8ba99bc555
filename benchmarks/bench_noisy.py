"""Noisy sphere and ellipsoid, d = 10: what averaging, uncertainty handling and learning-rate adaptation leave.

    python benchmarks/bench_noisy.py [--quick] [--save]

The noise is Gaussian: of standard deviation 1, or in proportion to f. A figure is log10 of the noise-free value at the
final mean after equally many evaluations, the median over seeds with quartiles; stop rules are not asked. x0 is uniform
in [1, 5]^d, sigma 2. pycma's NoiseHandler is used as its documentation shows, with 1 or up to 30 evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import Report, main
from _peers import installed

DIM = 10


def sphere(rows: Any) -> Any:
    return np.square(rows).sum(axis=-1)


def ellipsoid(rows: Any) -> Any:
    return np.square(rows) @ np.logspace(0.0, 6.0, DIM)


def noisy(f: Callable[[Any], Any], constant: float, share: float, rng: Any) -> Callable[[Any], Any]:
    def evaluate(rows: Any) -> Any:
        values = f(np.asarray(rows))
        return values + (constant + share * values) * rng.standard_normal(np.shape(values))

    return evaluate


def ours(strategy: Any, f: Callable[[Any], Any], x0: Any, budget: int, seed: int) -> Any:
    from esopt import Optimizer

    es, used = Optimizer(strategy, x0, seed), 0
    while used < budget:
        rows = es.ask()
        used += len(rows)
        es.tell(f(rows))
    return es.mean


def cmaes(adapt: bool, f: Callable[[Any], Any], x0: Any, budget: int, seed: int) -> Any:
    from cmaes import CMA

    es, used = CMA(mean=x0, sigma=2.0, seed=seed, lr_adapt=adapt), 0
    while used < budget:
        rows = [es.ask() for _ in range(es.population_size)]
        used += len(rows)
        es.tell(list(zip(rows, f(np.array(rows)).tolist(), strict=True)))
    return es.mean


def pycma(most: int, f: Callable[[Any], Any], x0: Any, budget: int, seed: int) -> Any:
    import cma

    one = f if most == 0 else lambda x: float(f(x))
    es = cma.CMAEvolutionStrategy(x0, 2.0, {"seed": seed, "verbose": -9})
    handler, used = cma.NoiseHandler(DIM, maxevals=[1, 1, most]) if most else None, 0
    while used < budget:
        if handler is None:
            rows = es.ask()
            used += len(rows)
            es.tell(rows, one(rows).tolist())
            continue
        rows, values = es.ask_and_eval(one, evaluations=handler.evaluations)
        used += len(rows) * int(handler.evaluations)
        es.tell(rows, values)
        es.sigma *= handler(rows, values, one, es.ask)
        used += handler.evaluations_just_done
    return es.mean


def methods() -> dict[str, Callable[..., Any]]:
    from functools import partial

    from esopt import CMAES, LRACMAES, Averaged, UncertaintyHandling

    plain = CMAES(sigma=2.0)
    found: dict[str, Callable[..., Any]] = {
        "CMAES": partial(ours, plain),
        "CMAES n=100": partial(ours, CMAES(sigma=2.0, n=100)),
        "Averaged 10": partial(ours, Averaged(plain, 10)),
        "UncertaintyHandling limit=1": partial(ours, UncertaintyHandling(plain, limit=1)),
        "UncertaintyHandling limit=30": partial(ours, UncertaintyHandling(plain, limit=30)),
        "LRACMAES": partial(ours, LRACMAES(sigma=2.0)),
    }
    if installed("cma"):
        found |= {
            "pycma": partial(pycma, 0),
            "pycma NoiseHandler 1": partial(pycma, 1),
            "pycma NoiseHandler 30": partial(pycma, 30),
        }
    if installed("cmaes"):
        found |= {"cmaes": partial(cmaes, False), "cmaes LRA": partial(cmaes, True)}
    return found


def run(report: Report, args: argparse.Namespace) -> None:
    np.seterr(all="ignore")  # peers that diverge
    budgets = (2_000,) if args.quick else (3_000, 15_000)
    rounds = args.rounds or (2 if args.quick else 9)
    if not installed("cma", "cmaes"):
        report.note("cma or cmaes is not installed and was left out")
    for f, constant, share in (
        (sphere, 1.0, 0.0),
        (sphere, 0.0, 0.5),
        (ellipsoid, 1.0, 0.0),
        (ellipsoid, 0.0, 0.5),
    ):
        noise = f"noise {constant:g}" if constant else f"noise {share:g} f"
        for name, method in methods().items():
            if args.only not in f"{f.__name__}, {noise}, {name}":
                continue
            for budget in budgets:
                left = []
                for seed in range(1, rounds + 1):
                    rng = np.random.default_rng(seed)
                    x0 = rng.uniform(1.0, 5.0, DIM)
                    mean = method(noisy(f, constant, share, rng), x0, budget, seed)
                    value = float(f(np.asarray(mean)))
                    left.append(np.log10(max(value, 1e-300)) if value == value else 300.0)
                report.figure(f"{f.__name__}, {noise}, {budget} evaluations: {name}", left, "log10 f")


if __name__ == "__main__":
    main("noisy", run, __doc__, limit=True)
