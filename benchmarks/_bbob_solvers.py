"""The solvers that are compared on COCO: each goes on for ever, restarting by its own rules.

Where a library has no restarts, they begin from random points in [-4, 4]^d, with a population twice as large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _bbob import Done, Function, Solver

SIGMA = 2.0


class Entry(NamedTuple):
    """A solver, the packages it needs, and its largest budget: evaluations over d."""

    solver: Solver
    packages: tuple[str, ...]
    budget: int


def esopt_default(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run what minimize takes by default, in a loop of one's own."""
    import esopt
    from esopt._defaults import default_strategy

    es = esopt.Optimizer(default_strategy(SIGMA, x0.size, gradients=False, stochastic=False), x0, seed)
    while True:
        es.tell([f(x) for x in es.ask()])


def esopt_strategy(make: Callable[[], Any]) -> Solver:
    """Return the solver that runs a strategy, in a loop of one's own."""

    def run(f: Function, x0: np.ndarray, seed: int) -> None:
        import esopt

        es = esopt.Optimizer(make(), x0, seed)
        while True:
            es.tell([f(x) for x in es.ask()])

    return run


def pycma_bipop(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run pycma with BIPOP restarts."""
    import cma

    cma.fmin(f, x0, SIGMA, {"verbose": -9, "seed": seed + 1}, restarts=30, bipop=True)


def pycma_surrogate(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run pycma with its global linear-quadratic surrogate, again from random points."""
    import cma

    rng, start = np.random.default_rng(seed), x0
    while True:
        cma.fmin_lq_surr2(f, start, SIGMA, {"verbose": -9, "seed": int(rng.integers(1, 2**31))})
        start = rng.uniform(-4.0, 4.0, x0.size)


def pycma_restricted(kind: str) -> Solver:
    """Return pycma with its VkD or separable sampler, and IPOP."""

    def run(f: Function, x0: np.ndarray, seed: int) -> None:
        import cma
        from cma import restricted_gaussian_sampler as restricted

        samplers = {"VkD": restricted.GaussVkDSampler, "VD": restricted.GaussVDSampler}
        if kind == "sep":
            options: dict[str, Any] = {"CMA_diagonal": True}
        else:
            options = samplers[kind].extend_cma_options({})
        cma.fmin(f, x0, SIGMA, {**options, "verbose": -9, "seed": seed + 1}, restarts=30)

    return run


def fcmaes_ipop(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run fcmaes' ACMA with n = 31 at first, doubled at every restart."""
    from fcmaes.cmaescpp import ACMA_C

    rng, start, n = np.random.default_rng(seed), x0, 31
    while True:
        es = ACMA_C(x0.size, None, start, SIGMA, popsize=n, max_evaluations=2**31 - 1, rg=rng)
        while es.tell(np.array([f(x) for x in es.ask()])) == 0:
            pass
        start, n = rng.uniform(-4.0, 4.0, x0.size), 2 * n


def modcma_bipop(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run modcma's native active CMA-ES with BIPOP."""
    from modcma import c_maes

    c_maes.utils.set_seed(seed)
    modules = c_maes.parameters.Modules()
    modules.active = True
    modules.restart_strategy = c_maes.options.RestartStrategy.BIPOP
    es = c_maes.ModularCMAES(c_maes.parameters.Settings(x0.size, modules, sigma0=SIGMA, x0=x0, budget=2**31 - 1))
    while True:
        es.step(f)


def cmaes_ipop(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run the package cmaes, with the population doubled at every restart."""
    from cmaes import CMA

    rng = np.random.default_rng(seed)
    es = CMA(mean=x0.copy(), sigma=SIGMA, seed=seed)
    while True:
        rows = [es.ask() for _ in range(es.population_size)]
        es.tell([(x, f(x)) for x in rows])
        if es.should_stop():
            n = 2 * es.population_size
            es = CMA(
                mean=rng.uniform(-4.0, 4.0, x0.size), sigma=SIGMA, population_size=n, seed=int(rng.integers(2**31))
            )


def scipy_restarts(method: str, **options: Any) -> Solver:
    """Return scipy's ``method`` from x0 and then from random starts."""

    def run(f: Function, x0: np.ndarray, seed: int) -> None:
        from scipy.optimize import minimize

        rng, start = np.random.default_rng(seed), x0
        while True:
            minimize(f, start, method=method, options=options)
            start = rng.uniform(-4.0, 4.0, x0.size)

    return run


def dual_annealing(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run scipy's dual annealing in the box [-5, 5]^d."""
    from scipy.optimize import dual_annealing as anneal

    while True:
        anneal(f, [(-5.0, 5.0)] * x0.size, x0=x0, rng=seed, maxiter=10**7, maxfun=2**31 - 1)
        seed += 1


def nlopt_restarts(method: str) -> Solver:
    """Return nlopt's ``method``, with a first trust region of 1, from x0 and then from random starts."""

    def run(f: Function, x0: np.ndarray, seed: int) -> None:
        import nlopt

        rng, start = np.random.default_rng(seed), x0
        ended: list[Done] = []

        def guarded(x: np.ndarray, _: np.ndarray) -> float:
            try:
                return f(x.copy())
            except Done as done:
                ended.append(done)
                raise nlopt.ForcedStop from None

        while True:
            solver = nlopt.opt(getattr(nlopt, method), x0.size)
            solver.set_min_objective(guarded)
            solver.set_initial_step(1.0)
            solver.set_ftol_abs(1e-9)
            solver.set_xtol_abs(1e-10)
            try:
                solver.optimize(start)
            except (nlopt.RoundoffLimited, nlopt.ForcedStop, RuntimeError, SystemError):
                pass
            if ended:
                raise ended[0]
            start = rng.uniform(-4.0, 4.0, x0.size)

    return run


ENTRIES: dict[str, Entry] = {
    "esopt default": Entry(esopt_default, (), 10_000),
    "pycma BIPOP": Entry(pycma_bipop, ("cma",), 10_000),
    "fcmaes IPOP": Entry(fcmaes_ipop, ("fcmaes",), 10_000),
    "modcma BIPOP": Entry(modcma_bipop, ("modcma",), 10_000),
    "cmaes IPOP": Entry(cmaes_ipop, ("cmaes",), 10_000),
    "pycma lq-surrogate": Entry(pycma_surrogate, ("cma",), 100),
    "SLSQP restarts": Entry(scipy_restarts("SLSQP", maxiter=10_000, ftol=1e-12), (), 1_000),
    "BFGS restarts": Entry(scipy_restarts("BFGS"), (), 1_000),
    "NEWUOA restarts": Entry(nlopt_restarts("LN_NEWUOA"), ("nlopt",), 1_000),
    "BOBYQA restarts": Entry(nlopt_restarts("LN_BOBYQA"), ("nlopt",), 1_000),
    "dual annealing": Entry(dual_annealing, (), 1_000),
}
