"""What error bars, SNR and the test for jumps cost, as a share of a generation: ask, evaluation, tell.

    python benchmarks/bench_diagnostics.py [--quick] [--only Score] [--save]

f is Rosenbrock's function and its gradient under numba, in esopt.Compiled: about the cheapest honest objective of 1e5
variables. The cost of a diagnostic is the time of the sums with it less that without it. Everything runs on one core
and one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import Report, main, measure


def rosenbrock() -> Any:
    """Return the objective."""
    import numba

    import esopt

    @numba.njit
    def f(x: Any) -> float:
        total = 0.0
        for i in range(x.size - 1):
            total += 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2
        return total

    @numba.njit
    def grad(x: Any) -> Any:
        out = np.zeros_like(x)
        for i in range(x.size - 1):
            bend = x[i + 1] - x[i] ** 2
            out[i] -= 400.0 * x[i] * bend + 2.0 * (1.0 - x[i])
            out[i + 1] += 200.0 * bend
        return out

    return esopt.Objective(f, grad=grad)


def check_lags(population: Any, grads: Any) -> None:
    """Compare |delta_b|^2, and the products of neighbours, that all and that few lags give."""
    from esopt.estimators import hybrid

    both = hybrid._Both(population, grads, np.arange(population.n // population.noise.block))
    totals, _, _ = both.rest()
    terms = hybrid._Terms(np.ones(population.n), np.zeros(both.kept.size), totals, np.zeros_like(totals))
    blocks = [both.sides(terms, totals, np.zeros(both.kept.size, np.bool_), lags)[1] for lags in (1, 8)]
    np.testing.assert_array_equal(blocks[0][:2], blocks[1][:2])


def generation(report: Report, args: argparse.Namespace, sampler: Any) -> None:
    import esopt
    from esopt.estimators import hybrid
    from esopt.noise import moment

    dim, n = (10_000, 128) if args.quick else (100_000, 128)
    row = f"d={dim:.0e} n={n} {type(sampler).__name__}".replace("e+0", "e")
    objective, start = rosenbrock(), np.full(dim, 0.5)
    parts: dict[str, Any] = {"Score": esopt.Score(), "Bonnet": esopt.Bonnet(), "Hybrid": esopt.Hybrid()}
    cases: dict[str, Callable[[], object]] = {}
    for name, estimator in parts.items():
        es = esopt.GradientES(sigma=0.01, n=n, estimator=estimator, sampler=sampler)
        state, evaluator = es.init(start, 1), esopt.Compiled(objective)
        evals, _ = evaluator.evaluate(es.ask(state), ())
        cases[f"{name}: ask and evaluation"] = lambda es=es, state=state, evaluator=evaluator: evaluator.evaluate(
            es.ask(state), ()
        )
        cases[f"{name}: tell"] = lambda es=es, state=state, evals=evals: es.tell(state, evals)
    population, grads = es.ask(state), evals.grads
    noise, weights = population.noise, np.linspace(-1.0, 1.0, n)
    by_block = -(-n // noise.block)
    cases["moment"] = lambda: moment(noise, weights)
    cases["moment with squares"] = lambda: moment(noise, weights, squares=True)
    cases["mean gradient"] = lambda: grads.reshape(by_block, -1, dim).sum(axis=1).sum(axis=0)
    check_lags(population, grads)
    both = hybrid._Both(population, grads, np.arange(by_block))
    totals, _, _ = both.rest()
    terms = hybrid._Terms(weights, np.zeros(by_block), totals, np.zeros_like(totals))
    nothing = np.zeros(by_block, np.bool_)
    cases["both sides, no pairs"] = lambda: both.sides(terms, totals, nothing, 0)
    cases["both sides, pairs for the test"] = lambda: both.sides(terms, totals, nothing)
    found = measure(cases, rounds=args.rounds or (3 if args.quick else 31), warmup=2, seconds=0.0)
    report.add(row, found)
    whole = {name: found[f"{name}: ask and evaluation"] + found[f"{name}: tell"] for name in parts}

    def share(what: str, name: str, extra: Any) -> None:
        report.figure(f"{row}: {what}, share of a generation with {name}", extra / whole[name], "", "<=", 0.1)

    share("error bars and SNR", "Score", found["moment with squares"] - found["moment"])
    share("error bars and SNR", "Bonnet", found["Bonnet: tell"] - found["mean gradient"])
    share("test for jumps", "Hybrid", found["both sides, pairs for the test"] - found["both sides, no pairs"])
    report.figure(f"{row}: tell, share of a generation with Hybrid", found["Hybrid: tell"] / whole["Hybrid"], "")


def run(report: Report, args: argparse.Namespace) -> None:
    import esopt

    for sampler in (esopt.Antithetic(), esopt.Gaussian()):
        if args.only in type(sampler).__name__:
            generation(report, args, sampler)


if __name__ == "__main__":
    main("diagnostics", run, __doc__, limit=True)
