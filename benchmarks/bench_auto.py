"""Auto against the single estimators it chooses from: squared error times cost, on twelve functions.

    python benchmarks/bench_auto.py [--quick] [--only quartic] [--save]

All estimators see the same 64 antithetic rows around the same mean, which descends the exact gradient of the smoothed
function for 200 generations. A generation costs 64 evaluations, and twice as many on top if it takes gradients; its
error is the squared distance to the exact gradient, bias included. Both are multiplied and summed, from generation 20
on and over the whole run. What probing costs is what the generations that measured gradients, while Auto had chosen
values alone, cost above those; it is given apart. A round is one seed for the noise.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _bench import Report, main
from numpy.typing import NDArray

from esopt import Antithetic, Auto, Bonnet, Evals, Gaussian, Hybrid, Key, Population, Score
from esopt.noise import BENCH

Array = NDArray[np.float64]

ROWS = 64
GENERATIONS = 200
SETTLED = 20
GRADIENT_COST = 2.0
SINGLES: dict[str, Any] = {"Score": Score(), "Bonnet": Bonnet(), "Hybrid": Hybrid()}


@dataclass(frozen=True)
class Function:
    """f of rows and its gradients; ``truth(mean)`` is the gradient of the smoothed function.

    ``value_noise`` and ``gradient_noise`` are standard deviations, the latter for each coordinate; ``lr`` is the step
    of the path down from ``start``.
    """

    name: str
    start: Array
    sigma: float
    f: Callable[[Array], Array]
    grad: Callable[[Array], Array]
    truth: Callable[[Array], Array]
    lr: float
    value_noise: float = 0.0
    gradient_noise: float = 0.0


def quartic(name: str, dim: int, condition: float, sigma: float, **noise: float) -> Function:
    """Sum of h_i (x_i^2 / 2 + x_i^4 / 4): smooth, and antithetic gradients have some variance."""
    h = np.geomspace(1.0, condition, dim)
    return Function(
        name,
        np.ones(dim),
        sigma,
        lambda x: (0.5 * np.square(x) + 0.25 * x**4) @ h,
        lambda x: (x + x**3) * h,
        lambda m: (m + m**3 + 3.0 * m * sigma**2) * h,
        0.01 / condition,
        **noise,
    )


def rosenbrock(dim: int, sigma: float) -> Function:
    """Pairs (u, v) of 100 (v - u^2)^2 + (1 - u)^2; the smoothed function is a polynomial again."""

    def f(x: Array) -> Array:
        u, v = x[:, ::2], x[:, 1::2]
        return (100.0 * np.square(v - u**2) + np.square(1.0 - u)).sum(axis=1)

    def slopes(x: Array, variance: float) -> Array:
        u, v = x[..., ::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., ::2] = 400.0 * (u**3 - u * v + 3.0 * u * variance) - 2.0 * (1.0 - u)
        out[..., 1::2] = 200.0 * (v - u**2 - variance)
        return out

    start = np.tile([-0.5, 0.5], dim // 2)
    return Function(
        f"Rosenbrock, d={dim}", start, sigma, f, lambda x: slopes(x, 0.0), lambda m: slopes(m, sigma**2), 5e-4
    )


def logistic(dim: int, sigma: float) -> Function:
    """Logistic loss of 50 points; its smoothed gradient by Gauss-Hermite quadrature along each point."""
    points = Gaussian().noise(Key(1, 0, BENCH), 50, dim).rows().astype(np.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    lengths = sigma * np.linalg.norm(points, axis=1)

    def slope(margin: Array) -> Array:
        return -1.0 / (1.0 + np.exp(margin))

    def truth(mean: Array) -> Array:
        return (slope((points @ mean)[:, None] + lengths[:, None] * nodes) @ weights) @ points / 50

    return Function(
        f"logistic loss, d={dim}",
        -np.ones(dim),
        sigma,
        lambda x: np.logaddexp(0.0, -x @ points.T).mean(axis=1),
        lambda x: slope(x @ points.T) @ points / 50,
        truth,
        0.05,
    )


def waves(dim: int, frequency: float) -> Function:
    """A slope and three waves with |omega| sigma = ``frequency``, sigma = 1; smoothed, waves are damped."""
    directions = Gaussian().noise(Key(2, 0, BENCH), 3, dim).rows().astype(np.float64)
    omega = frequency * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    a = np.full(dim, 0.3 / math.sqrt(dim))
    damping = math.exp(-0.5 * frequency**2)
    return Function(
        f"waves of frequency {frequency:g}, d={dim}",
        np.zeros(dim),
        1.0,
        lambda x: x @ a + np.sin(x @ omega.T).sum(axis=1),
        lambda x: a + np.cos(x @ omega.T) @ omega,
        lambda m: a + damping * np.cos(m @ omega.T) @ omega,
        0.05,
    )


def rastrigin(dim: int, sigma: float) -> Function:
    """Sum of x^2 - 10 cos(2 pi x)."""
    k = 2.0 * math.pi
    damping = math.exp(-0.5 * (k * sigma) ** 2)
    return Function(
        f"Rastrigin, d={dim}",
        np.full(dim, 2.2),
        sigma,
        lambda x: (np.square(x) - 10.0 * np.cos(k * x)).sum(axis=1),
        lambda x: 2.0 * x + 10.0 * k * np.sin(k * x),
        lambda m: 2.0 * m + 10.0 * k * damping * np.sin(k * m),
        0.02,
    )


def _density(t: Array | float) -> Any:
    return np.exp(-0.5 * np.square(t)) / math.sqrt(2.0 * math.pi)


def step(dim: int, slope: float, jump: float) -> Function:
    """A plane and a jump where x_1 = 0, that is parallel to it; sigma = 1."""
    a = np.full(dim, slope / math.sqrt(dim))
    first = np.eye(dim)[0]
    return Function(
        f"jump of {jump:g} on a slope of {slope:g}, d={dim}",
        first,
        1.0,
        lambda x: x @ a + jump * (x[:, 0] > 0.0),
        lambda x: np.tile(a, (len(x), 1)),
        lambda m: a + jump * float(_density(m[0])) * first,
        0.05,
    )


def staircase(dim: int) -> Function:
    """A parabola and a stair of unit steps in every coordinate; sigma = 1/2."""
    sigma, edges = 0.5, np.arange(-8.0, 9.0)
    return Function(
        f"staircase on a parabola, d={dim}",
        np.full(dim, 1.3),
        sigma,
        lambda x: 0.5 * np.square(x).sum(axis=1) + np.floor(x).sum(axis=1),
        lambda x: x.copy(),
        lambda m: m + _density((m[:, None] - edges) / sigma).sum(axis=1) / sigma,
        0.01,
    )


FUNCTIONS = (
    quartic("quartic, d=10", 10, 3.0, 0.5),
    quartic("ill-conditioned quartic, d=100", 100, 100.0, 0.1),
    rosenbrock(10, 0.1),
    logistic(20, 0.5),
    waves(2, 3.0),
    waves(100, 3.0),
    rastrigin(10, 0.6),
    step(2, 0.0, 1.0),
    step(20, 1.0, 4.0),
    staircase(50),
    quartic("quartic with noisy values, d=10", 10, 3.0, 0.5, value_noise=1.0),
    quartic("quartic with noisy gradients, d=5", 5, 1.0, 0.5, gradient_noise=6.0),
)


@dataclass
class Run:
    """Squared error times cost in every generation, and the part of it that probing caused."""

    product: Array
    probing: Array


def evaluate(function: Function, population: Population, seed: int, generation: int) -> Evals:
    """Values and gradients of all rows, with their noise."""
    rows = population.rows()
    draws = Gaussian().noise(Key(seed, generation, BENCH), len(rows), population.dim + 1).rows().astype(np.float64)
    values = function.f(rows) + function.value_noise * draws[:, 0]
    return Evals(values, function.grad(rows) + function.gradient_noise * draws[:, 1:])


def follow(function: Function, seed: int, generations: int) -> dict[str, Run]:
    """Every estimator along the same path, with the same evaluations."""
    dim, mean = function.start.size, function.start
    estimators = {**SINGLES, "Auto": Auto(gradient_cost=GRADIENT_COST)}
    states = {name: estimator.init(dim) for name, estimator in estimators.items()}
    runs = {name: Run(np.zeros(generations), np.zeros(generations)) for name in estimators}
    for generation in range(generations):
        bare = Population(mean, function.sigma, Antithetic().noise(Key(seed, generation), ROWS, dim))
        evals, truth = evaluate(function, bare, seed, generation), function.truth(mean)
        for name, estimator in estimators.items():
            population = estimator.prepare(bare, states[name])
            taken = "grads" in population.needs
            before = states[name]
            seen = evals if taken else Evals(evals.values)
            gradient, states[name] = estimator.estimate(population, seen, before)
            error = float(np.square(gradient.mean - truth).sum())
            runs[name].product[generation] = error * ROWS * (1.0 + GRADIENT_COST * taken)
            if name == "Auto" and taken and before.choice == 0:
                runs[name].probing[generation] = error * ROWS * GRADIENT_COST
        mean = mean - function.lr * truth
    return runs


def check() -> None:
    """The exact gradients against an average of many estimates of each function without noise."""
    for function in FUNCTIONS:
        many = []
        for generation in range(40):
            noise = Antithetic().noise(Key(9, generation), 2048, function.start.size)
            population = Population(function.start, function.sigma, noise)
            many.append(Score().estimate(population, Evals(function.f(population.rows())), Score().init(1))[0].mean)
        off = np.mean(many, axis=0) - function.truth(function.start)
        error = np.std(many, axis=0, ddof=1) / math.sqrt(len(many))
        if not np.abs(off / error).max() < 5.0:
            raise SystemExit(f"{function.name}: the exact gradient is off by {off / error} standard errors")


def run(report: Report, args: argparse.Namespace) -> None:
    """Follow every path with several seeds."""
    check()
    generations, rounds = (60, 2) if args.quick else (GENERATIONS, args.rounds or 12)
    for function in FUNCTIONS:
        if args.only not in function.name:
            continue
        found = [follow(function, seed, generations) for seed in range(rounds)]
        late = {name: np.array([r[name].product[SETTLED:].sum() for r in found]) for name in found[0]}
        whole = {name: np.array([r[name].product.sum() for r in found]) for name in found[0]}
        probing = np.array([r["Auto"].probing[SETTLED:].sum() for r in found])
        best = min(SINGLES, key=lambda name: float(late[name].mean()))
        base = max(float(late[best].mean()), 1e-9 * float(late["Score"].mean()))
        for name in SINGLES:
            if name != best:
                report.figure(f"{function.name}: {name} against {best}", [late[name].mean() / base], "x")
        what = f"{function.name}: Auto against the best single estimator, {best}, after {SETTLED} generations"
        report.figure(f"{what}, probing apart", [(late["Auto"] - probing).mean() / base], "x", "<=", 1.3)
        report.figure(f"{function.name}: what probing adds to that", [probing.mean() / base], "x", "<=")
        score = float(whole["Score"].mean())
        what = f"{function.name}: Auto against Score, whole run"
        report.figure(what, [whole["Auto"].mean() / score], "x", "<=", 1.1)


if __name__ == "__main__":
    main("auto", run, __doc__)
