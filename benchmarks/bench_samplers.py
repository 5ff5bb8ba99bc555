"""What a sampler costs, and what it saves: time against Gaussian rows, and variance of the score's gradient.

    python benchmarks/bench_samplers.py [--quick] [--only cost|orthogonal|sets] [--save]

Rows go to a buffer of 64 rows, block after block; a moment is that of one generation of 256 rows with its error bars,
the noise made anew. Variances are those of the mean gradient of a quadratic at equal numbers of values: independent
rows over the sampler, each round with noise of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _bench import Report, main, measure

from esopt import (
    Antithetic,
    Evals,
    Gaussian,
    Hadamard,
    Halton,
    Key,
    LowRank,
    NoBaseline,
    Orthogonal,
    Population,
    Rademacher,
    Score,
    Sobol,
    Sphere,
)
from esopt.noise import moment

ROWS = 64
GENERATION = 256
_seeds = iter(range(1, 1 << 30))


def samplers(dim: int) -> dict[str, Any]:
    """One of each; blocks of 64 rows where there are blocks."""
    side = int(np.sqrt(dim))
    matrix = LowRank(shapes=((side, dim // side), (dim % side,)) if dim % side else ((side, dim // side),))
    sets = {} if dim > 1000 else {"Sobol 64 points": Sobol(points=ROWS), "Halton 64 points": Halton(points=ROWS)}
    return {
        "Gaussian": Gaussian(),
        "Rademacher": Rademacher(),
        "Hadamard k=64": Hadamard(ROWS),
        "Sphere": Sphere(),
        "LowRank r=1": matrix,
        "Orthogonal k=8": Orthogonal(8),
        "Orthogonal k=64": Orthogonal(ROWS),
        **sets,
    }


def fresh_rows(sampler: Any, dim: int) -> Callable[[], object]:
    """Fill 64 rows of a generation that nobody has seen."""
    out = np.empty((ROWS, dim), np.float32)
    return lambda: sampler.fill(Key(next(_seeds)), 0, 0, dim, out)


def fresh_moment(sampler: Any, dim: int) -> Callable[[], object]:
    """The moment of a generation that nobody has seen, with the squares of its blocks."""
    weights = np.linspace(-1.0, 1.0, GENERATION)
    return lambda: moment(sampler.noise(Key(next(_seeds)), GENERATION, dim), weights, squares=True)


def cost(report: Report, args: argparse.Namespace) -> None:
    """Rows per second, and one moment, in 100, 1000 and 10^5 dimensions."""
    for dim in (100, 1000) if args.quick else (100, 1000, 100_000):
        rounds = args.rounds or (3 if args.quick else 7)
        found = measure({name: fresh_rows(s, dim) for name, s in samplers(dim).items()}, rounds=rounds)
        report.add(f"{ROWS} rows, d={dim}", found)
        for name, sample in found.items():
            report.figure(f"rows, d={dim}: {name}", ROWS / 1e3 / sample.wall, "10³/s")
            if name == "Rademacher":
                report.figure(f"rows, d={dim}: Rademacher against Gaussian", found["Gaussian"] / sample, "x", goal=1.0)
        found = measure({name: fresh_moment(s, dim) for name, s in samplers(dim).items()}, rounds=rounds)
        report.add(f"moment of {GENERATION} rows, d={dim}", found)
        for name, sample in found.items():
            report.figure(f"moment, d={dim}: {name} against Gaussian", sample / found["Gaussian"], "x", "<=")
    for k, dim in ((100, 100), (100, 1000)):
        found = measure({"block": lambda k=k, dim=dim: Orthogonal(k).noise(Key(next(_seeds)), k, dim).rows()}, rounds=7)
        report.figure(f"one orthogonal block, k={k}, d={dim}", found["block"], "s", "<=")


def errors(sampler: Any, f: Callable[[np.ndarray], np.ndarray], a: np.ndarray, n: int, count: int) -> Iterator[float]:
    """Squared errors of the score's mean gradient at sigma = 1, baseline 0, in ``count`` generations."""
    score, dim = Score(NoBaseline()), a.size
    for _ in range(count):
        population = Population(np.zeros(dim), 1.0, sampler.noise(Key(next(_seeds)), n, dim))
        gradient, _ = score.estimate(population, Evals(f(population.rows())), score.init(dim))
        yield float(np.square(gradient.mean - a).sum())


def orthogonal(report: Report, args: argparse.Namespace) -> None:
    """Antithetic orthogonal blocks against independent antithetic pairs on a quadratic, d = 100."""
    dim, hessian = 100, np.diag(np.linspace(0.0, 1.0, 100))
    a = np.linspace(-1.0, 1.0, dim)

    def f(x: np.ndarray) -> np.ndarray:
        return x @ a + 0.5 * np.square(x) @ np.diag(hessian)

    count, rounds = (20, 3) if args.quick else (200, args.rounds or 11)
    for name, kind in (("orthogonal", Orthogonal), ("Hadamard", Hadamard)):
        for k in (10, 50, 100):
            theory = (dim + 1) / (dim + 2 - k) if kind is Orthogonal else (dim + 1) / (dim - k + (k - 1) * 28 / 127)
            ratios = []
            for _ in range(rounds):
                block = np.mean(list(errors(Antithetic(kind(k)), f, a, 2 * k, count)))
                single = np.mean(list(errors(Antithetic(), f, a, 2 * k, count)))
                ratios.append(single / block)
            goal = 0.9 * theory if kind is Orthogonal else None
            what = f"variance, d=100, k={k}: iid pairs over {name} pairs (theory {theory:.3g})"
            report.figure(what, ratios, "x", goal=goal)


def sets(report: Report, args: argparse.Namespace) -> None:
    """Sobol and Halton against independent rows on quadratics with sigma^2 |H|^2 = curvature |a|^2."""
    count, rounds = (5, 3) if args.quick else (30, args.rounds or 11)
    for dim, n in ((2, 1024), (8, 256), (8, 4096), (32, 256), (32, 4096)):
        for bend in (0.2, 5.0) if (dim, n) == (8, 4096) else (0.2,):
            a = np.linspace(-0.6, 1.0, dim)
            curves = np.linspace(0.2, 1.0, dim)
            curves *= np.sqrt(bend * (a @ a) / (curves @ curves))
            variance = ((dim + 1) + (dim / 2 + 2) * bend) * float(a @ a)

            def f(x: np.ndarray, a: np.ndarray = a, curves: np.ndarray = curves) -> np.ndarray:
                return x @ a + 0.5 * (np.square(x) - 1.0) @ curves

            for sampler in (Sobol(), Sobol(8), Halton(), Halton(8)):
                ratios = [variance / n / np.mean(list(errors(sampler, f, a, n, count))) for _ in range(rounds)]
                goal = None
                if isinstance(sampler, Sobol) and (dim, n, bend) == (8, 4096, 0.2):
                    goal = 50.0 if sampler.replicates == 1 else 8.0
                name = f"{type(sampler).__name__}({sampler.replicates})"
                report.figure(f"MSE, d={dim}, n={n}, curvature {bend:g}: iid over {name}", ratios, "x", goal=goal)


def run(report: Report, args: argparse.Namespace) -> None:
    """Run the parts whose name contains ``--only``."""
    for part in (cost, orthogonal, sets):
        if args.only in part.__name__:
            part(report, args)


if __name__ == "__main__":
    main("samplers", run, __doc__, limit=False)
