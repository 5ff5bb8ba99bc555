"""Seconds of one generation in a hundred thousand dimensions, ask(out) + tell, against peers' same algorithms.

    python benchmarks/bench_large.py [--quick] [--only lm_ma_es] [--save]

One core and one thread. This package's runs are 45 generations old. Its LM-MA-ES leaves out vectors that cannot change
a candidate by more than 1e-12; "all vectors" is a state where none can be left out. evosax computes with all of them
in every generation, pypop7 with as many as generations have passed, two or three here. pypop7 has no ask and tell: its
optimizer runs in a thread that waits at the first evaluation of every generation, and the objective costs nothing.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from _bench import Report, main, measure
from _peers import KEYS, installed
from bench_generation import falling

Case = Callable[[], object]
WARM = 45


def ours(name: str, dim: int, n: int, values: Callable[[], np.ndarray], buffer: np.ndarray) -> Case:
    """Return a generation of the named strategy, some generations into a run."""
    import esopt

    es = esopt.Optimizer(getattr(esopt, name)(n=n), np.ones(dim), seed=1)
    for _ in range(WARM):
        es.tell(values())
    return lambda: (es.ask(out=buffer), es.tell(values()))


def all_vectors(dim: int, n: int, values: Callable[[], np.ndarray], buffer: np.ndarray) -> Case:
    """Return a generation of LM-MA-ES from a state in which every vector has its final length."""
    import esopt

    strategy = esopt.LMMAES(n=n)
    state = strategy.init(np.ones(dim), 1)
    vectors = np.random.default_rng(0).standard_normal(state.vectors.shape, np.float32)
    vectors *= np.float32(1e-3)
    gram = (vectors @ vectors.T).astype(np.float64) + 1e4 * np.eye(len(vectors))
    state = replace(state, generation=10_000, vectors=vectors, gram=gram)

    def generation() -> None:
        strategy.ask(state).rows(out=buffer)
        strategy.tell(state, esopt.Evals(values()))

    return generation


def evosax(name: str, dim: int, n: int, values: Callable[[], np.ndarray]) -> Case:
    """Return a generation of evosax, ask and tell compiled."""
    import evosax.algorithms
    import jax
    import jax.numpy as jnp

    start = jnp.ones(dim, jnp.float32)
    es = getattr(evosax.algorithms, name)(n, start)
    params = es.default_params
    keys = list(jax.random.split(jax.random.key(0), KEYS))
    state, count = [es.init(keys[0], start, params)], [0]

    def generation() -> None:
        count[0] += 1
        rows, told = es.ask(keys[count[0] % KEYS], state[0], params)
        jax.block_until_ready(rows)
        state[0], _ = es.tell(keys[0], rows, jnp.asarray(values(), jnp.float32), told, params)
        jax.block_until_ready(state[0])

    return generation


def evotorch(dim: int, n: int, values: Callable[[], np.ndarray]) -> Case:
    """Return a generation of evotorch's separable CMA-ES."""
    import torch
    from evotorch import Problem
    from evotorch.algorithms import CMAES

    torch.set_num_threads(1)
    problem = Problem(
        "min", lambda rows: torch.as_tensor(values(), dtype=torch.float32), solution_length=dim,
        initial_bounds=(0.0, 1.0), vectorized=True, seed=1,
    )  # fmt: skip
    es = CMAES(problem, stdev_init=0.3, popsize=n, separable=True, center_init=torch.ones(dim))
    return es.step


def pypop7(module: str, name: str, dim: int, n: int, values: Callable[[], np.ndarray]) -> Case:
    """Return a generation of pypop7: from one first evaluation to the next."""
    import importlib

    go, done, told = threading.Semaphore(0), threading.Semaphore(0), [0, np.empty(0)]

    def objective(x: np.ndarray) -> float:
        if told[0] % n == 0:
            done.release()
            go.acquire()
            told[1] = values()
        told[0] += 1
        return float(told[1][(told[0] - 1) % n])

    build = getattr(importlib.import_module(f"pypop7.optimizers.es.{module}"), name)
    bound = np.full(dim, 1e9)
    problem = {"fitness_function": objective, "ndim_problem": dim, "lower_boundary": -bound, "upper_boundary": bound}
    options = {
        "max_function_evaluations": 10**9, "seed_rng": 1, "mean": np.ones(dim), "sigma": 0.3, "n_individuals": n,
        "verbose": 0, "is_restart": False, "early_stopping_evaluations": 10**9,
    }  # fmt: skip
    threading.Thread(target=build(problem, options).optimize, daemon=True).start()
    done.acquire()

    def generation() -> None:
        go.release()
        done.acquire()

    return generation


PEERS: dict[str, list[tuple[str, tuple[str, ...], Any]]] = {
    "SepCMA": [
        ("evosax Sep_CMA_ES", ("jax", "evosax"), partial(evosax, "Sep_CMA_ES")),
        ("evotorch CMAES separable", ("torch", "evotorch"), evotorch),
        ("pypop7 SEPCMAES", ("pypop7",), partial(pypop7, "sepcmaes", "SEPCMAES")),
    ],
    "LMMAES": [
        ("evosax LM_MA_ES", ("jax", "evosax"), partial(evosax, "LM_MA_ES")),
        ("pypop7 LMMAES", ("pypop7",), partial(pypop7, "lmmaes", "LMMAES")),
    ],
    "CRFMNES": [("evosax CR_FM_NES", ("jax", "evosax"), partial(evosax, "CR_FM_NES"))],
    "RMES": [
        ("evosax Rm_ES", ("jax", "evosax"), partial(evosax, "Rm_ES")),
        ("pypop7 RMES", ("pypop7",), partial(pypop7, "rmes", "RMES")),
    ],
    "VkDCMA": [],
}


def run(report: Report, args: argparse.Namespace) -> None:
    dim, n = (20_000, 64) if args.quick else (100_000, 256)
    buffer = np.empty((n, dim), np.float32)
    for name, peers in PEERS.items():
        if args.only not in name:
            continue
        row, values = f"{name} d={dim:.0e} n={n}".replace("e+0", "e"), falling(n)
        mine = {f"esopt {name}": ours(name, dim, n, values, buffer)}
        if name == "LMMAES":
            mine["esopt LMMAES, all vectors"] = all_vectors(dim, n, values, buffer)
        theirs: dict[str, Case] = {}
        for label, packages, build in peers:
            if not installed(*packages):
                report.note(f"{packages[-1]} is not installed: skipped")
                continue
            theirs[label] = build(dim, n, values)
            for _ in range(2):
                theirs[label]()
        rounds = args.rounds or (3 if args.quick else 7)
        samples = measure({**mine, **theirs}, rounds=rounds, warmup=1, seconds=0.0, settle=True)
        report.add(row, samples)
        if not theirs:
            continue
        best = min(theirs, key=lambda label: float(np.median(samples[label].wall)))
        for own in mine:
            report.figure(f"{row}: {own}, against {best}", samples[best] / samples[own], "x", goal=3.0)


if __name__ == "__main__":
    main("large", run, __doc__, limit=True)
