"""The libraries that benchmarks compare with, each behind ask / tell / mean. Import this after ``one_thread()``.

Every peer gets the best that its interface allows: compiled steps, random keys made beforehand, results waited for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

KEYS = 64


@dataclass(frozen=True)
class Peer:
    """A minimiser that starts at (1, ..., 1).

    ``ask()`` returns rows (n, d), ``tell(values)`` takes the values of the last rows, ``mean()`` returns (d,).
    ``fused`` is a whole generation with given values in one compiled call, where the library can do that.
    """

    name: str
    ask: Callable[[], Any]
    tell: Callable[[np.ndarray], Any]
    mean: Callable[[], np.ndarray]
    fused: Callable[[np.ndarray], Any] | None = None


def installed(*packages: str) -> bool:
    """Return whether all packages can be imported."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def evosax(algorithm: str, dim: int, n: int) -> Peer:
    """Return evosax Open_ES with Adam, or PGPE with ClipUp; ask and tell are compiled."""
    import jax
    import jax.numpy as jnp
    import optax
    from evosax.algorithms import PGPE, Open_ES
    from evosax.core.optimizer import clipup

    start = jnp.ones(dim, jnp.float32)
    if algorithm == "Open_ES":
        es = Open_ES(n, start, optimizer=optax.adam(0.01), std_schedule=optax.constant_schedule(0.02))
        params = es.default_params
    else:
        es = PGPE(n, start, optimizer=clipup(0.075, 0.15))
        params = es.default_params.replace(std_init=2.25 / dim**0.5)
    keys = list(jax.random.split(jax.random.key(0), KEYS))
    states = [es.init(keys[0], start, params)]
    fused_states = [es.init(keys[0], start, params)]
    rows: list[Any] = [None]
    count = [0]

    def next_key() -> Any:
        count[0] += 1
        return keys[count[0] % KEYS]

    def ask() -> Any:
        rows[0] = None
        rows[0], states[0] = es.ask(next_key(), states[0], params)
        return jax.block_until_ready(rows[0])

    def tell(values: np.ndarray) -> None:
        states[0], _ = es.tell(keys[0], rows[0], jnp.asarray(values, jnp.float32), states[0], params)
        jax.block_until_ready(states[0])

    @jax.jit
    def generation(key: Any, state: Any, values: Any) -> Any:
        population, state = es.ask(key, state, params)
        return es.tell(key, population, values, state, params)[0]

    def fused(values: np.ndarray) -> None:
        told = jnp.asarray(values, jnp.float32)
        fused_states[0] = jax.block_until_ready(generation(next_key(), fused_states[0], told))

    return Peer(f"evosax {algorithm}", ask, tell, lambda: np.asarray(es.get_mean(states[0])), fused)


def evotorch(dim: int, n: int) -> Peer:
    """Return evotorch's functional PGPE with ClipUp."""
    import torch
    from evotorch.algorithms.functional import pgpe, pgpe_ask, pgpe_tell

    torch.set_num_threads(1)
    torch.manual_seed(0)
    state = [
        pgpe(
            center_init=torch.ones(dim),
            center_learning_rate=0.075,
            stdev_learning_rate=0.1,
            objective_sense="min",
            optimizer="clipup",
            optimizer_config={"max_speed": 0.15},
            radius_init=2.25,
        )
    ]
    rows: list[Any] = [None]

    def ask() -> Any:
        rows[0] = pgpe_ask(state[0], popsize=n)
        return rows[0]

    def tell(values: np.ndarray) -> None:
        state[0] = pgpe_tell(state[0], rows[0], torch.as_tensor(values, dtype=torch.float32))

    return Peer("evotorch PGPE", ask, tell, lambda: pgpe_center(state[0]))


def pgpe_center(state: Any) -> np.ndarray:
    """Return the centre of evotorch's search distribution as an array."""
    return np.asarray(state.optimizer_state.center)


def cmaes(dim: int, n: int) -> Peer:
    """Return CMA-ES of the package cmaes."""
    from cmaes import CMA

    es = CMA(mean=np.ones(dim), sigma=0.3, population_size=n, seed=1)
    rows: list[Any] = [[]]

    def ask() -> Any:
        rows[0] = [es.ask() for _ in range(n)]
        return rows[0]

    def tell(values: np.ndarray) -> None:
        es.tell(list(zip(rows[0], values.tolist(), strict=True)))

    return Peer("cmaes CMA", ask, tell, lambda: np.asarray(es.mean))


def pycma(dim: int, n: int) -> Peer:
    """Return CMA-ES of the package cma."""
    import cma

    es = cma.CMAEvolutionStrategy(np.ones(dim), 0.3, {"popsize": n, "verbose": -9, "seed": 1})
    rows: list[Any] = [[]]

    def ask() -> Any:
        rows[0] = es.ask()
        return rows[0]

    def tell(values: np.ndarray) -> None:
        es.tell(rows[0], values.tolist())

    return Peer("pycma CMA", ask, tell, lambda: np.asarray(es.mean))


def fcmaes(dim: int, n: int) -> Peer:
    """Return the native active CMA-ES of fcmaes."""
    from fcmaes.cmaescpp import ACMA_C

    es = ACMA_C(dim, None, np.ones(dim), 0.3, popsize=n, max_evaluations=2**31 - 1, stop_hist=0)
    rows: list[Any] = [np.ones((1, dim))]

    def ask() -> Any:
        rows[0] = es.ask()
        return rows[0]

    return Peer("fcmaes C++", ask, es.tell, lambda: np.asarray(rows[0]).mean(axis=0))


def modcma(dim: int, n: int) -> Peer:
    """Return the native modular CMA-ES of modcma, taken apart into ask and tell."""
    from modcma import c_maes

    modules = c_maes.parameters.Modules()
    modules.active = True
    es = c_maes.ModularCMAES(c_maes.parameters.Settings(dim, modules, lambda0=n, sigma0=0.3, x0=np.ones(dim)))

    def ask() -> Any:
        es.mutate(lambda x: 0.0)
        return np.asarray(es.p.pop.X).T

    def tell(values: np.ndarray) -> None:
        es.p.pop.f = values
        es.select()
        es.recombine()
        es.adapt()

    return Peer("modcma C++", ask, tell, lambda: np.asarray(es.p.adaptation.m).reshape(-1))


def check(peer: Peer, generations: int = 60) -> Peer:
    """Return the peer if it descends a sphere, so that no side of a comparison is used the wrong way round."""
    before = float(np.square(peer.mean()).sum())
    for _ in range(generations):
        peer.tell(np.square(np.asarray(peer.ask(), np.float64)).sum(axis=1))
    after = float(np.square(peer.mean()).sum())
    if not after < 0.9 * before:
        raise RuntimeError(f"{peer.name} took |mean|^2 from {before:.3g} to {after:.3g} on a sphere: called wrongly?")
    return peer
