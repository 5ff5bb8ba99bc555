"""The solvers that are compared on COCO: each goes on for ever, restarting by its own rules.

Where a library has no restarts, they begin from random points in [-4, 4]^d, with a population twice as large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from _bbob import Done, Entry, Function, Solver

SIGMA = 2.0


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
    "pycma lq-surrogate": Entry(pycma_surrogate, ("cma",), 100, 1),
    "SLSQP restarts": Entry(scipy_restarts("SLSQP", maxiter=10_000, ftol=1e-12), (), 1_000),
    "BFGS restarts": Entry(scipy_restarts("BFGS"), (), 1_000),
    "NEWUOA restarts": Entry(nlopt_restarts("LN_NEWUOA"), ("nlopt",), 1_000),
    "BOBYQA restarts": Entry(nlopt_restarts("LN_BOBYQA"), ("nlopt",), 1_000),
    "dual annealing": Entry(dual_annealing, (), 1_000),
}


def noisy_default(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run what minimize takes by default when it is told that f is noisy."""
    from esopt._defaults import default_strategy

    esopt_strategy(lambda: default_strategy(SIGMA, x0.size, gradients=False, stochastic=True))(f, x0, seed)


def pycma_noise(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run pycma with its NoiseHandler, up to 30 evaluations, and IPOP restarts."""
    import cma

    options = {"verbose": -9, "seed": seed + 1}
    cma.fmin(f, x0, SIGMA, options, restarts=30, noise_handler=cma.NoiseHandler(x0.size, [1, 1, 30]))


def cmaes_lra(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run the package cmaes with learning-rate adaptation; its stop rules begin it anew."""
    from cmaes import CMA

    rng, start = np.random.default_rng(seed), x0
    while True:
        es = CMA(mean=start.copy(), sigma=SIGMA, seed=int(rng.integers(2**31)), lr_adapt=True)
        while not es.should_stop():
            rows = [es.ask() for _ in range(es.population_size)]
            es.tell([(x, f(x)) for x in rows])
        start = rng.uniform(-4.0, 4.0, x0.size)


def _strategies() -> dict[str, Callable[[], Any]]:
    """Return the strategies that the benchmarks of noise and of large dimensions run, by name."""
    import esopt

    return {
        "esopt CMAES": lambda: esopt.Restarts(esopt.CMAES(SIGMA)),
        "esopt LRACMAES": lambda: esopt.Restarts(esopt.LRACMAES(SIGMA)),
        "esopt UncertaintyHandling": lambda: esopt.UncertaintyHandling(esopt.CMAES(SIGMA), limit=30),
        "esopt SepCMA": lambda: esopt.Restarts(esopt.SepCMA(SIGMA)),
        "esopt DDCMA": lambda: esopt.Restarts(esopt.DDCMA(SIGMA)),
        "esopt CRFMNES": lambda: esopt.Restarts(esopt.CRFMNES(SIGMA)),
        "esopt VkDCMA": lambda: esopt.Restarts(esopt.VkDCMA(SIGMA)),
        "esopt PSACMA": lambda: esopt.PSACMA(esopt.CMAES(SIGMA, active=False)),
        "esopt LMMAES": lambda: esopt.Restarts(esopt.LMMAES(SIGMA)),
    }


def ours(name: str) -> Entry:
    """Return the entry of a strategy of the library, by the name in :func:`_strategies`."""
    return Entry(lambda f, x0, seed: esopt_strategy(_strategies()[name])(f, x0, seed), (), 1_000)


def pypop7_lmcma(f: Function, x0: np.ndarray, seed: int) -> None:
    """Run pypop7's LM-CMA with its own restarts."""
    from pypop7.optimizers.es.lmcma import LMCMA

    size = x0.size
    problem = {
        "fitness_function": f, "ndim_problem": size,
        "lower_boundary": np.full(size, -5.0), "upper_boundary": np.full(size, 5.0),
    }  # fmt: skip
    options = {"seed_rng": seed, "mean": x0.copy(), "sigma": SIGMA, "max_function_evaluations": 2**62, "verbose": 0}
    LMCMA(problem, options).optimize()


NOISY: dict[str, Entry] = {
    "esopt default for noise": Entry(noisy_default, (), 1_000),
    **{name: ours(name) for name in ("esopt CMAES", "esopt PSACMA", "esopt LRACMAES", "esopt UncertaintyHandling")},
    "pycma NoiseHandler": Entry(pycma_noise, ("cma",), 1_000),
    "pycma BIPOP": Entry(pycma_bipop, ("cma",), 1_000),
    "cmaes LRA": Entry(cmaes_lra, ("cmaes",), 1_000),
}

LARGE: dict[str, Entry] = {
    "esopt default": Entry(esopt_default, (), 1_000),
    "pycma VkD": Entry(pycma_restricted("VkD"), ("cma",), 1_000),
    "pycma sep": Entry(pycma_restricted("sep"), ("cma",), 1_000),
    "pypop7 LM-CMA": Entry(pypop7_lmcma, ("pypop7",), 1_000),
    "L-BFGS-B restarts": Entry(scipy_restarts("L-BFGS-B", maxfun=10**9, maxiter=10**9), (), 1_000),
}
LARGE_OTHERS: dict[str, Entry] = {
    name: ours(name)
    for name in ("esopt CMAES", "esopt SepCMA", "esopt DDCMA", "esopt VkDCMA", "esopt CRFMNES", "esopt LMMAES")
}
